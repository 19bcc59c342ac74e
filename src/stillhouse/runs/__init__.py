"""What is done with a recipe: a run, its teacher, its checks, its diagnoses."""
