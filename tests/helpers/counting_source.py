"""A source of correlated randomness that counts what another one is asked for."""

from collections import Counter

from mpc.core.interfaces import CorrelationSource


class Counting(CorrelationSource):
    """Counts correlations by class.

    Attributes
    ----------
    counts, announced : Counter of str
        What was dealt, and what programs were said to ask for.
    """

    works_ahead = True

    def __init__(self, of, takes_terms=True, refused=()):
        self._of, self.takes_terms, self._refused = of, takes_terms, refused
        self.counts, self.announced = Counter(), Counter()

    def makes(self, kind):
        return kind.__name__ not in self._refused

    def masks(self, id, correlation):
        self.counts[type(correlation).__name__] += 1
        return self._of.masks(id, correlation)

    def corrected(self, id, correlation):
        return self._of.corrected(id, correlation)

    def book(self, correlation, ledger):
        self._of.book(correlation, ledger)

    def value(self, correlation):
        return self._of.value(correlation)

    def announce(self, base, bundle):
        self.announced.update(type(correlation).__name__ for _, correlation in bundle)

    def close(self):
        self._of.close()
