"""Runs of a recipe: training, the teacher, checks before a run, and diagnoses."""
