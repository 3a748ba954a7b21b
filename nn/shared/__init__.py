"""Models on shares: evaluation, training, their ranges."""
