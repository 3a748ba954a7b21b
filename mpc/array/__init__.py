"""SharedArray: operators, methods and NumPy's functions on secret arrays, calling the protocols."""
