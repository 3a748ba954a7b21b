"""The base of mpc: secret values and masks, correlations, keys, costs, errors, a session's runtime."""
