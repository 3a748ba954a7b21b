"""Workers of parties, to which rows are spread."""
