"""A provider with several workers: the same corrections, in bounded memory, wherever they run."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import joblib
import numpy as np
import pytest
from joblib._parallel_backends import ThreadingBackend

import mpc
from mpc.correction_pool import CorrectionPool
from mpc.launch import start
from mpc.provider import Provider
from mpc.requests import Block, read
from tests.parties.programs import Hoarding, children
from tests.parties.services import ROOT, marked

KEYS = (bytes(range(16)), bytes(range(16, 32)))
LIMIT = 1 << 24


def program(s):
    x = s.share(None, owner="bob", shape=(60, 40))
    w = s.share(None, owner="alice", shape=(40, 50))
    y = (x @ w).relu()
    return (y @ y.T).relu().argmax(axis=1).reveal()


@pytest.fixture(scope="module")
def asked():
    with mpc.Session() as s:
        found = [pair for pair in s.plan(program).correlations if pair[1].corrected_words]
    assert len(found) > 5
    return found


@pytest.fixture
def right(asked):
    provider, words = Provider(KEYS), []
    for id, correlation in asked:
        words.append(np.empty(correlation.corrected_words, np.uint64))
        provider.correct(id, correlation, words[-1])
    return words


def requests(asked):
    block = Block.of(asked, 0, asked[-1][0])
    return [request for frame in block.frames(0) for request in read(frame)]


def check(dealt, right):
    assert len(dealt) == len(right)
    for one, other in zip(dealt, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_workers_deal_what_one_does(asked, right):
    pool = CorrectionPool(2, LIMIT)
    for _ in range(2):
        check(list(pool.deal(KEYS, requests(asked))), right)
    # And after one who has taken a part alone.
    half = pool.deal(KEYS, requests(asked))
    next(half)
    half.close()
    check(list(pool.deal(KEYS, requests(asked))), right)


def test_lost_workers_are_made_good(asked, right):
    pool = CorrectionPool(2, LIMIT)
    list(pool.deal(KEYS, requests(asked)))
    workers = children("loky")
    assert len(workers) >= 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        check(list(pool.deal(KEYS, requests(asked))), right)


def test_workers_do_not_outlive_a_provider_that_was_killed():
    code = (
        "import time\n"
        "from mpc.correction_pool import CorrectionPool\n"
        "pool = CorrectionPool(2, 1000)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    mark = uuid.uuid4().hex
    environment = {**os.environ, "SOTTO_TEST": mark}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert len(marked(mark)) >= 3
        process.kill()
    end = time.monotonic() + 20
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def test_what_is_refused_is_refused_by_workers_too(asked):
    pool = CorrectionPool(2, 10)
    with pytest.raises(mpc.ShapeError):
        list(pool.deal(KEYS, requests(asked)))


class Counting(ThreadingBackend):
    """Counts what it is given."""

    calls = 0

    def submit(self, func, callback=None):
        Counting.calls += 1
        return super().submit(func, callback)


def test_joblib_chooses_where_workers_run(asked, right):
    joblib.register_parallel_backend("counting", Counting)
    with joblib.parallel_config("counting"):
        pool = CorrectionPool(2, LIMIT)
    dealt = []
    # As a session does: in another thread, behind the with block.
    thread = threading.Thread(target=lambda: dealt.extend(pool.deal(KEYS, requests(asked))))
    thread.start()
    thread.join()
    check(dealt, right)
    assert Counting.calls == 2 + len(asked)  # two to start with


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_numbers_of_workers(workers):
    with pytest.raises(mpc.ArgumentError, match="workers must be a positive number"):
        mpc.provider_service.ProviderService(None, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_bounded_whatever_is_asked_for_ahead(tmp_path, workers):
    found = start(lambda _: Hoarding(workers, tmp_path / "pid"), ("alice", "bob"), timeout=120)
    (total, grown) = found["bob"]
    assert found["alice"] == total == Hoarding.ROWS
    with mpc.Session() as s:
        plan = s.plan(lambda p: p.share(None, owner="alice", shape=(Hoarding.ROWS,)).relu())
    one = sum(8 * correlation.corrected_words for _, correlation in plan.correlations)
    # 2^26 bytes may wait; beside them there is what is being dealt and the masks that it is from.
    assert Hoarding.TIMES * one > 20 << 26
    assert grown < (2 << 26) + 12 * workers * one
