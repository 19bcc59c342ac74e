"""Readers of single-label data sets."""
