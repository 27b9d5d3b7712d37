"""Pieces of pages: each draws one thing from values that it is given."""
