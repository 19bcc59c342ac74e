"""Batches, the embedded data, and readers of real formats."""
