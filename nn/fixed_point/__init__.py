"""Whether a model fits a fixed-point format: range of inputs, interval bounds, precision, audit."""
