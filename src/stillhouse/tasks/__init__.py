"""Tasks: what a batch contains, the label loss, the sites of methods, and the scores."""
