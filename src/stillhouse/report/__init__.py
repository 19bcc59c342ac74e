"""Runs -> one self-contained HTML page."""
