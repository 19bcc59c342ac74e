"""Data sets drawn from the digits that come with scikit-learn."""
