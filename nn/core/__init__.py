"""The basis of the other rooms of nn: checks of arguments, labels, archives, progress bars."""
