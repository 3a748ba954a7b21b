"""The parts of the command sotto that need no neural network."""
