"""Studies: many runs of one recipe, and the statistics over them."""
