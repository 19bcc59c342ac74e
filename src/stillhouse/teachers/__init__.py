"""Batch -> Trace."""
