"""Readers of data sets with boxes: images with any number of objects."""
