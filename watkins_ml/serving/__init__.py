"""The registered model: the code that it carries, the table that it takes, and the limits of an HTTP request."""
