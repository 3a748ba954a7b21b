"""Values chosen by public thresholds: exact for every value, and its cost."""

import numpy as np
import pytest

from mpc.protocols import sign, thresholds

LARGEST = 2**62 - 1


@pytest.mark.parametrize(
    "places", [(0,), (-5, 3, 4), (-LARGEST, 0, LARGEST), tuple(2**k for k in range(62))]
)
def test_the_value_of_the_place_among_the_thresholds(session, share_integers, integers, places):
    near = [t + step for t in (*places, LARGEST - 1, 1 - LARGEST, 0) for step in (-1, 0, 1)]
    z = np.array([v for v in near if abs(v) <= LARGEST])
    x = share_integers(session, z, bound=2**62)
    numbers = thresholds.below(x, places)
    random = np.random.default_rng(len(places))
    values = random.integers(-LARGEST, LARGEST, (3, len(places) + 1))
    chosen = thresholds.choose(session, numbers, values)
    place = np.searchsorted(places, z, side="right")
    for row in range(3):
        found = x.derive(np.ascontiguousarray(chosen[:, row]), frac_bits=0, bound=2**62)
        np.testing.assert_array_equal(integers(found), values[row][place])


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 64, 100])
def test_cost_is_as_declared(session, spent, size):
    x = session.share(np.zeros(size, int), owner="alice", bound=2**20)
    window = sign.count_bits(2**20 + 40)
    declared = thresholds.cost(session.size, size, window, 3)
    assert spent(session, lambda: thresholds.below(x, (-2, 5, 40))) == declared
    assert declared.rounds == 3
