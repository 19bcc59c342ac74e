"""Scores of an evaluation, exact over ranks."""
