"""Dense detectors: a family is a grid of priors, an assigner, a box coder and its losses."""
