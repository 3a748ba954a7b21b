"""How messages get from one computing party to the others."""
