"""How likely it is that chance alone brings about what a test has counted."""

from scipy.special import bdtr, bdtrc

# Some hundred counts: a false alarm in one test run out of a billion.
ALARM = 1e-12


def chance_of_count(count, times, p):
    """Return how likely a binomial count is to be as far out on its side, exactly: p may be near 0 or 1."""
    count = int(count)
    return min(bdtr(count, times, p), bdtrc(count - 1, times, p))
