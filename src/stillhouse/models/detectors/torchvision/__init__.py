"""Detectors of torchvision as they are: their raw predictions as a `Dense`, with their losses."""
