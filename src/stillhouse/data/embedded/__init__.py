"""Data sets drawn from the digits that scikit-learn ships."""
