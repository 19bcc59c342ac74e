"""Recipes: one run, described in a YAML file."""
