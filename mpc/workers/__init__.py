"""Worker pools of the parties, over which the rows of a prediction are spread."""
