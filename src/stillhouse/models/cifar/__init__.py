"""The networks for images of 32x32 in which papers on distillation compare methods."""
