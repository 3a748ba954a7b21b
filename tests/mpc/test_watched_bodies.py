"""The bodies of the other tests with three parties or more who watch one another, in one process.

A share of them in each run, always the same; SOTTO_WATCHED_BODIES runs all, with all parameters.
tests/parties/test_bodies_over_processes.py runs them with a process for each party.
"""

import hashlib
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from mpc.core.watching import MALICIOUS
from tests.helpers.bodies import ROOT, Local, name_of
from tests.helpers.watched_bodies import ALONE, BUILD_THEIR_OWN, SAY_OTHERWISE

EVERY = "SOTTO_WATCHED_BODIES" in os.environ
# Of every sixth file, every third body.
SHARE = None if EVERY else (3, 1)
FILES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("mpc", "nn")
    for path in (ROOT / "tests" / folder).rglob("test_*.py")
    if path.parent.name != "two_party" and path.stem not in BUILD_THEIR_OWN
    if "ession" in path.read_text()
)[:: 1 if EVERY else 6]
REFUSAL = "ArgumentError: security='malicious' needs a crypto provider, got provider=None"
NOTHING = hashlib.sha256().hexdigest()


def run(**which):
    bodies = Local(tuple(FILES), security=MALICIOUS, fixed=False, **which)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(bodies).result()[1]


@pytest.fixture(scope="module")
def found():
    """The outcome of each body, what it says, and a digest of what was opened."""
    return run(share=SHARE, without=tuple(SAY_OTHERWISE))


def refused(found):
    return {test for test, (_, text, _) in found.items() if REFUSAL in text}


def test_bodies_give_the_same_and_nobody_aborts(found):
    ends = Counter(outcome for outcome, *_ in found.values())
    opened = [test for test, (*_, digest) in found.items() if digest != NOTHING]
    print(f"{dict(ends)}, {len(refused(found))} refused by name, {len(opened)} open something")
    failed = {
        test: text
        for test, (outcome, text, _) in found.items()
        if outcome == "failed" and test not in refused(found)
    }
    assert not failed, failed
    assert len(opened) > (2000 if EVERY else 15)


def test_two_parties_alone_are_refused_by_name(found):
    for test in refused(found):
        assert "[alone" in test or name_of(test) in ALONE, test
    assert [test for test in found if "[alone" in test]
    for test in found:
        assert "[alone" not in test or test in refused(found), test
    if EVERY:
        assert ALONE <= {name_of(test) for test in refused(found)}


@pytest.mark.skipif(not EVERY, reason="SOTTO_WATCHED_BODIES runs what says otherwise, too")
def test_what_says_otherwise_fails_and_not_by_an_end_of_the_session():
    found = run(share=None, only=tuple(SAY_OTHERWISE))
    failed = {test: text for test, (outcome, text, _) in found.items() if outcome == "failed"}
    assert {name_of(test) for test in failed} == set(SAY_OTHERWISE)
    assert not [test for test, text in failed.items() if "AbortError" in text]
