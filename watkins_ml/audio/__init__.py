"""Audio file to log-mel tensor: `decode` reads recordings, `frontend` turns them into spectrograms."""
