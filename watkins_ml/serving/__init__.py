"""The registered model: the code that it carries, the table that it takes, and what guards it behind HTTP."""
