"""Models in the clear, and their files."""
