"""Runs as one self-contained HTML page: text, tables, pictures and sound in a single file."""

from watkins_ml.evaluation.page.render import write_page

__all__ = ["write_page"]
