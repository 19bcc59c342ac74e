"""Batches, the embedded data, and readers of real formats."""

from stillhouse.data.source import FromTorch, Pixels, Sample, Source

__all__ = ["FromTorch", "Pixels", "Sample", "Source"]
