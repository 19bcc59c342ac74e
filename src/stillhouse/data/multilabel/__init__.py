"""Readers of multi-label data sets."""
