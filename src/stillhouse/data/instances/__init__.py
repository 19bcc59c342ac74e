"""Readers of images with objects that have a mask each."""
