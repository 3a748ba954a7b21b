"""What everything else in nn stands on: checks, labels, files, progress bars."""
