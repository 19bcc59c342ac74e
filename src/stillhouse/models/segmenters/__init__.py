"""Networks for semantic segmentation, and what they return."""
