"""A party that deviates for good: from one message on, all that it sends its neighbour is garbage."""

import os

import numpy as np
import pytest

from mpc.core.errors import ABORTED, AbortError
from mpc.core.frames import Kind
from tests.helpers.watched import run
from tests.mpc.test_watched_parties import PROGRAMS, SEED

pytestmark = pytest.mark.filterwarnings("ignore::mpc.RangeWarning")

# How many tries at each party and program; all programs with SOTTO_TAMPERINGS.
EVERY = "SOTTO_TAMPERINGS" in os.environ
TRIES = 3 if EVERY else 1
NAMED = ("inference", "training", "results", "saving", "resuming", "serving")
TOP = np.uint64(1 << 63)
GARBAGE = {
    "random": lambda words, drawn: drawn.integers(0, 1 << 64, words.shape, np.uint64),
    "ones": lambda words, drawn: np.full_like(words, 2**64 - 1),
    "zeros": lambda words, drawn: np.zeros_like(words),
    "top": lambda words, drawn: words ^ TOP,
}


def sent(outcome, party):
    """Return what a party has sent: to whom, which kind, which shapes. Steps may name a run or a set."""
    return [(f[1], f[3], f[5]) for f in outcome.network.frames if f[0] == party]


@pytest.mark.parametrize("name", PROGRAMS if EVERY else NAMED)
def test_garbage_is_found_at_the_next_check_and_changes_no_frame_before(name):
    """Neither words, nor what is opened of them, may raise another error or send another frame."""
    drawn = np.random.default_rng(SEED)
    honest = run(PROGRAMS[name])
    assert not honest.errors
    for sender in [cheater for cheater in range(3) for _ in range(TRIES)]:
        after = (sender + 1) % 3
        own = [f for f in honest.network.frames if f[:2] == (sender, after)]
        own = [f[2] for f in own if f[3] is not Kind.CHECK and any(np.prod(s) for s in f[5])]
        if not own:
            continue
        begins, how = own[drawn.integers(len(own))], list(GARBAGE)[drawn.integers(len(GARBAGE))]
        checks, first = [], []

        def spoil(
            message, sender=sender, after=after, begins=begins, how=how, seen=(checks, first)
        ):
            checks, first = seen
            if message.sender != sender or message.receiver != after:
                return
            if message.kind is Kind.CHECK:
                checks.append(message.number)
            elif message.number >= begins and not message.public:
                for words in message.arrays:
                    other = GARBAGE[how](words, drawn)
                    if not first and (other != words).any():
                        first.append(len(checks))
                    words[...] = other

        outcome = run(PROGRAMS[name], spoil)
        if not first:
            continue  # it was public from there on, or garbage already
        for party in {0, 1, 2} - {sender}:
            said = SEED, sender, begins, how, party
            error = outcome.results[party]
            assert isinstance(error, AbortError) and str(error) == ABORTED, (said, error)
            assert outcome.sessions[party].transport.accepted <= first[0], said
            frames = sent(outcome, party)
            assert frames == sent(honest, party)[: len(frames)], said
