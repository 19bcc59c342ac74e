"""The product space: preprocess x activation x distance x weighting x reduction."""
