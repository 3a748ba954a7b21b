"""Odd uses of NumPy's functions: as NumPy does, or refused with a reason that is known here.

``SOTTO_USES=100000`` tries so many of them, instead of some hundreds.
"""

import os
import re

import numpy as np
import pytest

import mpc
from tests.helpers.numpy_fuzz import draw, run

USES = int(os.environ.get("SOTTO_USES", "400"))
NAMES = ("alice", "bob", "carol", "dave", "erin")
SHARES = {
    (2, "crypto", "values"): 1.0,
    (2, "crypto", "check"): 0.3,
    (3, "crypto", "values"): 0.2,
    (5, "crypto", "check"): 0.1,
    (2, None, "check"): 0.1,
}
# What is refused though NumPy has an answer.
KNOWN = re.compile(
    "bins need at least two edges|subscripts as text, without dots|array without axes cannot be sorted"
    "|largest of no values|quantile needs at least one element|axis must be in"
    "|index out of range for shape .*with size 0"
)


@pytest.mark.parametrize(("parties", "provider", "ranges"), SHARES, ids=str)
def test_odd_uses(parties, provider, ranges):
    right, share = 0, SHARES[parties, provider, ranges]
    count = int(USES * share)
    with mpc.Session(NAMES[:parties], ranges=ranges, provider=provider) as session:
        for seed in range(count):
            use = draw((parties, len(ranges), seed))
            said = run(session, use)
            right += said == "right"
            assert said in ("right", "wrong to both") or KNOWN.search(said), f"{use}: {said}"
    # Uses that NumPy refuses, too, are few.
    assert right > 0.7 * count


def limits(random):
    """Return numerators and divisors whose quotients lie around what a format holds."""
    y = random.choice([-1, 1], 3) * np.exp2(random.uniform(-16, 15, 3))
    y = np.rint(y * 2**16) / 2**16
    y[y == 0] = 2.0**-16
    x = np.clip(y * 2.0**14 * random.uniform(0.2, 4, 3), -(2.0**15) + 1, 2.0**15 - 1)
    x, y = np.rint(x * 2**16) / 2**16, np.where(random.random(3) < 0.03, 0, y)
    return (x.reshape(3, 1), y) if random.random() < 0.3 else (x, y)


def test_the_check_on_shares_refuses_the_quotients_that_the_check_of_values_does():
    refused = 0
    with mpc.Session(ranges="values") as by_values, mpc.Session(ranges="check") as on_shares:
        for seed in range(60):
            x, y = limits(np.random.default_rng(seed))

            def quotient(session, x=x, y=y):
                try:
                    return (
                        session.share(x, owner="alice") / session.share(y, owner="bob")
                    ).reveal()
                except mpc.RangeError:
                    return None

            one, other = quotient(by_values), quotient(on_shares)
            assert (one is None) == (other is None), (x, y)
            refused += one is None
    assert 10 < refused < 50


def test_functions_with_a_check_take_at_most_eight_rounds():
    """The check goes beside them, and its bit is known before the result is."""
    with mpc.Session(ranges="check") as s:
        for call, rounds in (
            (lambda x, y: x / y, 8), (lambda x, y: 1 / y, 6), (lambda x, y: y.sqrt(), 6),
            (lambda x, y: y.log(), 6), (lambda x, y: x.exp(), 5), (lambda x, y: y**0.3, 6),
        ):  # fmt: skip
            # No mask of theirs is there yet, which would save a round.
            x = s.share(np.linspace(-4, 4, 300), owner="alice")
            y = s.share(np.linspace(0.5, 4, 300), owner="bob")
            before = s.cost().rounds
            call(x, y)
            assert s.cost().rounds - before == rounds
