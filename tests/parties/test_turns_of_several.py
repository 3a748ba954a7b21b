"""Requests of several clients in one evaluation: what is refused of one changes nothing for the others."""

import numpy as np
import pytest

import mpc
import nn
from nn.serving.agreement import RANGE, Request
from nn.serving.turns import Turns

UNIT = 2**16
ENDS = {"one": (np.array([-1.0, 0, 5]), np.array([1.0, 3, 5.5])), "two": (-np.ones(3), np.ones(3))}
# Of one architecture and one scale, each with ranges of its own.
WEIGHTS = {name: np.random.default_rng(k).normal(0, 1, (3, 4)) for k, name in enumerate(ENDS)}


def ends_of(model):
    return [np.rint(end * UNIT).astype(np.int64) for end in ENDS[model]]


def requests_of(cases):
    """Return (model, words, whether in range) of each case (model, rows, what is wrong)."""
    for model, rows, wrong in cases:
        low, high = ends_of(model)
        words = np.random.default_rng(rows).integers(low, high, (rows, 3), endpoint=True)
        if wrong:
            words[rows - 1, rows % 3] = (high + 1 if wrong == "above" else low - 1)[rows % 3]
        yield model, words


def evaluate(session, cases):
    """Evaluate requests as a service does; return status and this party's words of each, and rounds."""
    models = {}
    for name, (low, high) in ENDS.items():
        plain = nn.MLP.from_parameters([WEIGHTS[name], np.zeros(4)])
        own = (
            plain
            if session.me == "alice"
            else nn.MLP.from_parameters([0 * WEIGHTS[name], np.zeros(4)])
        )
        models[name] = own.share(session, owner="alice", low=low.min(), high=high.max())
        # The same scale for both; served models have one for each feature.
        models[name].low, models[name].high = low, high
    turns = Turns.__new__(Turns)
    turns.session, turns.models, turns.served = session, models, 0
    turns._progress, turns._seconds, turns._me = False, {}, session.me
    number = session.parties.index(session.me)
    told = []
    for trusted in (False, True):
        requests = []
        for k, (model, words) in enumerate(requests_of(cases)):
            other = np.random.default_rng(100 + k).integers(0, 2**64, words.shape, np.uint64)
            share = other if number == 0 else words.view(np.uint64) - other
            requests.append(
                Request(f"client {k}", bytes([k]) * 16, model, b"v", "class", len(words), share[None],
                        lambda: None, "kind", trusted)
            )  # fmt: skip
        turns._evaluate(requests)
        told.append([(r.status, r.result, r.cost) for r in requests])
    return told, turns.served


SOME = [("one", 1, ""), ("one", 4, "above"), ("one", 2, ""), ("two", 3, "below"), ("two", 5, "")]
ALL = [("one", 2, "below"), ("two", 1, "above")]


@pytest.mark.parametrize(
    ("cases", "provider"), [(SOME, "crypto"), (SOME, None), (ALL, "crypto")],
    ids=["some", "some-alone", "all"],
)  # fmt: skip
def test_a_request_out_of_range_is_refused_alone(cases, provider):
    found = mpc.launch(
        evaluate, inputs=dict.fromkeys(("alice", "bob"), (cases,)), provider=provider
    )
    (checked, believed), served = (
        zip(*(told for told, _ in found.values()), strict=True),
        found["bob"][1],
    )
    bad = [bool(wrong) for *_, wrong in cases]
    assert served == len(cases) + bad.count(False)
    for k, (model, words) in enumerate(requests_of(cases)):
        for told, refused in ((checked, bad[k]), (believed, False)):
            status, results, _ = zip(*(party[k] for party in told), strict=True)
            assert status == ((RANGE if refused else "",) * 2)
            if refused:
                assert results == (None, None)
            else:
                scores = words / UNIT @ WEIGHTS[model]
                np.testing.assert_array_equal(sum(results), scores.argmax(axis=1))
    answered = [party[k][2] for party in checked for k in range(len(cases)) if not bad[k]]
    assert len(set(answered)) <= 1
