"""Readers of images in files of which each has several labels."""
