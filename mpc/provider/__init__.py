"""Where correlated randomness comes from: the crypto provider, as a service too, and what asks for it."""
