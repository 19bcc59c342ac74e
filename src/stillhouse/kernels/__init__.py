"""Faster stand-ins for functions of `functional`, and the choice between them."""
