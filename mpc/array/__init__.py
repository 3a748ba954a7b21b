"""Shared arrays: operators, methods and NumPy's functions, by the protocols."""
