"""Readers of images with one label each."""
