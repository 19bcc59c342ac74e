"""Meters: scores of an evaluation, exact over ranks."""
