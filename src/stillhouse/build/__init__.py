"""From a recipe to objects: data, networks, teacher, method, run."""
