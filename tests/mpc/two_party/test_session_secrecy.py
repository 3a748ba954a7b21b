"""What a party receives in a session without a provider is distributed the same whatever the secrets are.

Whole protocols run on two very different secrets, each from the same state of the two parties. Every
message must have the same distribution for both, also when the receiver takes away its share of an input.
:mod:`tests.mpc.two_party.test_two_party_secrecy` examines what was made ahead, too.
"""

import numpy as np
import pytest

import mpc
from mpc.two_party.channel import exchange
from tests.mpc.protocols.test_secrecy import (
    ALARM,
    LIMIT,
    PROGRAMS,
    UNIT,
    chance,
    chance_of_same,
    chance_of_uniform,
    counts_of,
)

SIZE = 2048
# Fewer words have no distribution of bytes to speak of.
FEW, ENOUGH = 16, 1024
SECRETS = {
    "zeros": lambda: np.zeros(SIZE),
    "limit": lambda: np.full(SIZE, LIMIT),
    "minus": lambda: np.full(SIZE, -LIMIT),
    "mixed": lambda: np.random.default_rng(3).integers(-(2**31) + 1, 2**31, SIZE) * UNIT,
}
# ReLU in two rounds is one of a provider's. What the parties compute without a word.
LOCAL = ("share", "share of the last", "square")
PAIRS = [("zeros", "limit"), ("minus", "mixed")]


@pytest.fixture(scope="module")
def alone():
    with mpc.Session(provider=None) as s:
        yield s


def received(s, tap, program, secret):
    """Return what each party has received: [(receiver, words)], and its shares of the inputs."""
    inputs = []
    share = s.share
    # The same transfers are left, and the same keys are there: none.
    s.pair.resume()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s, "share", lambda *a, **k: (inputs.append(share(*a, **k)), inputs[-1])[1])
        with tap(s) as heard:
            result = program(s, SECRETS[secret]())
    messages = []
    for round_ in heard.sent:
        for words, opening in round_:
            rows = {opening: words[0]} if isinstance(opening, int) else dict(enumerate(words))
            messages += [(1 - sender, row.reshape(-1).copy()) for sender, row in rows.items()]
    shares = [{party: x.shares[party].reshape(-1) for party in (0, 1)} for x in inputs]
    return messages, shares, result


def same(first, second):
    """Return how likely two samples of one source are to differ so much."""
    counts, other = counts_of(first), counts_of(second)
    if len(first) >= ENOUGH:
        return chance_of_same(counts, other)
    n, ones, others = len(first), counts[2], other[2]
    share = (ones + others) / (2 * n)
    varying = (share > 0) & (share < 1)
    spread = 2 * n * (share * (1 - share))[varying]
    return chance(((ones - others)[varying] ** 2 / spread).sum(), max(1, varying.sum()))


def examine(s, tap, program, secrets):
    """Return what tells two secrets apart."""
    first, second = (received(s, tap, program, name) for name in secrets)
    assert [(to, m.size) for to, m in first[0]] == [(to, m.size) for to, m in second[0]]
    findings, examined = [], 0
    for k, ((receiver, mine), (_, other)) in enumerate(zip(first[0], second[0], strict=True)):
        views = {"": (mine, other)}
        for number, (a, b) in enumerate(zip(first[1], second[1], strict=True)):
            if a[receiver].size == mine.size:
                views[f" less share {number}"] = (mine - a[receiver], other - b[receiver])
                views[f" with share {number}"] = (mine ^ a[receiver], other ^ b[receiver])
        for what, (one, two) in views.items():
            if len(one) < FEW:
                continue
            examined += 1
            if same(one, two) < ALARM:
                findings.append(f"message {k} to {s.parties[receiver]}{what}")
    return findings, examined, (first[2], second[2])


@pytest.mark.parametrize("secrets", PAIRS, ids=" and ".join)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if "in two rounds" not in name])
def test_messages_tell_nothing(alone, tap, name, secrets):
    with alone.range_policy.vouched():
        findings, examined, results = examine(alone, tap, PROGRAMS[name], secrets)
    assert findings == []
    assert examined > 0 or name in LOCAL
    for result in results:
        # The shares of the result: each is uniform.
        if result is not None and result.size >= ENOUGH:
            for row in result.shares:
                assert chance_of_uniform(counts_of(row.reshape(-1))) >= ALARM


def test_products_of_one_partys_inputs_are_shared_afresh(alone):
    """Both know less than the product, though nothing was sent for it."""
    x = alone.share(SECRETS["limit"](), owner="alice")
    before = alone.cost().total
    with alone.range_policy.vouched():
        products = [x * x, (x.reshape(-1, 1) @ x.reshape(1, -1)[:, :1]).reshape(-1)]
    assert alone.cost().total == before
    for z in products:
        for row in z.shares:
            assert chance_of_uniform(counts_of(row)) >= ALARM


# A control.


def test_a_share_that_is_not_masked_is_found(alone, tap):
    def program(s, a):
        x = s.share(a, owner="alice")
        # Both open what the other can complete.
        exchange(s.pair.channel, x.shares)

    findings, _, _ = examine(alone, tap, program, PAIRS[0])
    assert len(findings) == 4
