"""Teachers: Batch -> Trace, from a network or from a cache of its outputs."""
