"""What people wrote down of recordings: selection tables and labels in, labels of windows out."""
