"""Teachers: Batch -> Trace."""
