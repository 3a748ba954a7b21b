"""Sources of correlated randomness: the crypto provider, its service, and the parties' side of it."""
