"""The bodies of the local session's tests, with every party in a process of its own.

Each run takes other bodies, SOTTO_EVERY_PARAMETER all of them. Parties who watch one another run the same
few in each, SOTTO_WATCHED_BODIES has them run all.
"""

import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mpc.core.watching import MALICIOUS, SEMI_HONEST
from mpc.launch import start
from tests.helpers.bodies import ROOT, Local, Processes
from tests.helpers.watched_bodies import ALONE, SAY_OTHERWISE

NAMES = ("alice", "bob", "carol")
EVERY = bool(os.environ.get("SOTTO_EVERY_PARAMETER"))
EVERY_WATCHED = bool(os.environ.get("SOTTO_WATCHED_BODIES"))
SEED = int(os.environ.get("SOTTO_SEED", str(random.SystemRandom().randrange(10**6))))
# The files of models; those of training, networks and layers are about shares as much.
OF_MODELS = ("shared_model", "shared_layers", "networks", "shared_training")
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *(
            path
            for path in ROOT.glob("tests/mpc/**/test_*.py")
            # Its sessions, if any, are its own.
            if path.parent.name != "two_party"
        ),
        *(next(ROOT.glob(f"tests/nn/**/test_{name}.py")) for name in OF_MODELS),
    ]
)
# What cannot be asked of one party's process, and why.
LOCAL_ONLY = {
    "test_provider_keys": "all parties' keys side by side",
    "test_audit": "all parties' keys side by side",
    "test_numpy_fuzz": "checks on the values of all parties",
    "test_watched_parties": "builds sessions of its own",
    "test_watched_more": "builds sessions of its own",
    "test_watched_files": "builds sessions of its own",
    "test_watched_deviations": "builds sessions of its own",
    "test_watched_spread": "builds sessions of its own",
    "test_watched_bodies": "runs bodies itself",
    "test_secrecy": "all parties' shares side by side",
    "test_sorting": "all parties' shares side by side; of it test_numpy_functions has more",
    "test_domains": "makes all parties' shares by hand",
    "test_intervals": "makes all parties' shares by hand",
    "test_normalised": "makes all parties' shares by hand",
    "test_truncated_product": "makes all parties' shares by hand",
    "refused_by_their_values": "checks on the values of all parties",
    "the_ring_s_limit": "makes all parties' shares by hand",
    "test_range_policy": "checks on the values of all parties",
    "test_program_fuzz": "has a file of its own for processes",
    "test_parties_apart": "builds sessions of its own",
    "test_counting_source": "builds sessions of its own",
    "test_opened_words": "listens to the local transport",
    "test_telling": "all parties' words side by side",
    "test_mpc_examples": "examples in the documentation, of local sessions",
    "no_other_generator": "about the source",
    "shares_add_up": "all parties' shares side by side",
    "test_secret_bits": "makes all parties' shares by hand",
    "bits_are_ordinary_numbers_too": "only one party learns the value",
    "test_refusals": "only the owner of a value can refuse it",
    "missing_values_are_refused": "only the owner of a value can refuse it",
    "test_threads_and_forks": "threads and children of one process",
    "provider_is_told_of_an_index": "the provider lives elsewhere",
    "masked_anew_has_no_index": "the provider lives elsewhere",
    "rows_asked_for_alone": "the provider lives elsewhere",
    "reveal_truncates": "only one party learns the value",
    "reveal_to": "only one party learns the value",
    "revealing_to": "only one party learns the value",
    "to_one": "only one party learns the value",
    "plan_of_everything": "only one party learns a value in it",
    "what_its_cache_has_dropped": "the provider lives elsewhere",
    "nobody_is_here": "somebody is",
    "opens_nothing_of_it": "listens to the local transport",
    "mnist_accuracy": "trained in the clear",
    "one_product_each": "counts the products of all parties",
    "further_on_in_the_stream": "the provider lives elsewhere",
    "follows_training_in_the_clear": "only one party learns the model",
    "test_doctor": "sessions of its own, in processes too",
    "check_of_ranges_by_values": "of all parties, in one process",
    "shares_of_wins_are_masked": "all parties' shares side by side",
    "holds_nothing_else_that_was_dealt": "counts the memory of all parties",
    "truncates_on_its_way_rounds_once": "only one party learns the value",
    "memory_of_a_batch": "all parties' memory in one process",
}


def share_of(bodies):
    """Return which of so many bodies runs, the same one at all parties; None for all of them."""
    return None if EVERY else (bodies, SEED % bodies)


OTHERS = {
    "two": ["three", "five", "alone"], "three": ["two", "five", "pair", "alone"],
    "watched": ["five", "alone"],
}  # fmt: skip


@pytest.fixture(scope="module", params=OTHERS)
def runs(request):
    """Outcomes and digests of bodies, in each party's process and in a local session; how many at least."""
    names = NAMES[:2] if request.param == "two" else NAMES
    share, least, without, security = share_of(len(names)), 50, (), SEMI_HONEST
    if request.param == "watched":
        share, least = (None, 500) if EVERY else (1, 200) if EVERY_WATCHED else (20, 9)
        share = (share, 0) if share else None
        without, security = (*SAY_OTHERWISE, *ALONE), MALICIOUS
    chosen = " and ".join(f"not {word}" for word in [*OTHERS[request.param], *LOCAL_ONLY])
    arguments = (*FILES, "-k", chosen)
    apart = Processes(arguments, names, share, security=security, without=without)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        locally = pool.submit(Local(arguments, share, security, without=without))
        timeout = 3600 if EVERY or EVERY_WATCHED else 600
        found = start(lambda _: apart, names, answer_timeout=60, timeout=timeout, security=security)
        return found, locally.result(), least


def test_bodies_pass_in_every_process(runs):
    apart, _, least = runs
    for name, (_, found, _) in apart.items():
        failed = {test: text for test, (outcome, text, _) in found.items() if outcome == "failed"}
        assert not failed, f"{name}, SOTTO_SEED={SEED}: {failed}"
        passed = [test for test, (outcome, *_) in found.items() if outcome == "passed"]
        assert len(passed) > least
        if EVERY and len(apart) == 2:  # some files have bodies for two parties alone
            for file in FILES:
                if Path(file).stem not in LOCAL_ONLY:
                    assert any(file in test for test in passed), f"{name}: {file}"


def test_the_same_words_are_opened(runs):
    apart, (_, local, _), least = runs
    compared = 0
    for name, (_, found, generated) in apart.items():
        for test, (outcome, _, digest) in found.items():
            if outcome == "passed" and test not in generated:
                assert digest == local[test][2], f"{name}, SOTTO_SEED={SEED}: {test}"
                compared += 1
    assert compared > least * 0.8 * len(apart)


def test_parties_open_the_same_words_for_generated_values(runs):
    apart, _, _ = runs
    (_, first, generated), *others = apart.values()
    for _, found, _ in others:
        for test in generated & set(first):
            assert found[test][2] == first[test][2], f"SOTTO_SEED={SEED}: {test}"


def test_bodies_pass_in_both_processes_without_a_provider():
    chosen = " and ".join(["alone", *(f"not {word}" for word in LOCAL_ONLY)])
    arguments = (*FILES, "-k", chosen)
    apart = start(
        lambda _: Processes(arguments, NAMES[:2], share_of(2), provider=False), NAMES[:2],
        answer_timeout=60, provider=False,
    )  # fmt: skip
    for name, (_, found, _) in apart.items():
        failed = {test: text for test, (outcome, text, _) in found.items() if outcome == "failed"}
        assert not failed, f"{name}, SOTTO_SEED={SEED}: {failed}"
        passed = [test for test, (outcome, *_) in found.items() if outcome == "passed"]
        assert len(passed) > 30, f"{name}: {found}"
