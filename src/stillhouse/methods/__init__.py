"""Lesson -> Terms, one idea a file."""
