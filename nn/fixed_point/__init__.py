"""Models and fixed point: inputs, bounds, precision, the audit."""
