"""Training: settings, optimizers, the pieces of a step."""
