"""Builds the objects of a recipe: data, networks, teacher, method, run."""
