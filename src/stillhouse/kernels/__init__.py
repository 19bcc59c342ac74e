"""Faster implementations of functions of `functional`, and the choice between them."""
