"""The disk cache of teacher outputs, which runs and processes share."""
