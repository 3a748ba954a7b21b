"""What all of mpc stands on: values and masks, keys, costs, errors, a session's runtime."""
