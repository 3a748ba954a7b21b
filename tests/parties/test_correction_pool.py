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
from joblib._parallel_backends import MultiprocessingBackend, ThreadingBackend

import mpc
from mpc.launch import start
from mpc.provider.correction_pool import CorrectionPool
from mpc.provider.dealer import Provider
from mpc.provider.requests import Block, Request, read
from tests.helpers.processes import gone, marked
from tests.helpers.programs import Hoarding, children
from tests.helpers.services import MARK, ROOT

KEYS = (bytes(range(16)), bytes(range(16, 32)))
OTHER_KEYS = (bytes(range(32, 48)), bytes(range(48, 64)))
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
    workers = children("popen_loky_posix")
    # And after one who has taken a part alone, as a session does that ends meanwhile.
    for taken in (1, 3, 7, len(right) - 1):
        half = pool.deal(OTHER_KEYS, requests(asked))
        for _ in range(taken):
            next(half)
        half.close()
        check(list(pool.deal(KEYS, requests(asked))), right)
    assert children("popen_loky_posix") == workers


def test_lost_workers_are_made_good(asked, right):
    pool = CorrectionPool(2, LIMIT)
    list(pool.deal(KEYS, requests(asked)))
    workers = children("popen_loky_posix")
    assert len(workers) >= 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        check(list(pool.deal(KEYS, requests(asked))), right)


PROVIDER = """
import time
from mpc.provider.correction_pool import CorrectionPool
pool = CorrectionPool(2, 1000)
print("ready", flush=True)
time.sleep(600)
"""
PARTY = """
import os, time
from joblib import Parallel, delayed
from mpc.core import joblib_processes
list(Parallel(2, **joblib_processes.options())(delayed(os.getpid)() for _ in range(2)))
print("ready", flush=True)
time.sleep(600)
"""


def pool_of(mark):
    return [process for process in marked(mark) if "popen_loky_posix" in process.command]


@pytest.mark.parametrize("code", [PROVIDER, PARTY], ids=["provider", "party"])
@pytest.mark.parametrize(
    ("workers", "after"), [(1, 0.0), (1, 0.1), (1, 0.4), (2, 0.0), (2, 0.8), (2, "ready")]
)
def test_workers_do_not_outlive_a_process_that_was_killed(code, workers, after):
    """Killed so many seconds after the first or the second process of its pool has begun."""
    mark = f"{MARK}{uuid.uuid4().hex}"
    environment = {**os.environ, **dict([mark.split("=")])}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while len(pool_of(mark)) < workers:
            assert process.poll() is None
        if after == "ready":
            assert process.stdout.readline() == "ready\n"
            assert len(pool_of(mark)) == 2
        else:
            time.sleep(after)
        process.kill()
    assert not (left := gone(lambda: marked(mark))), left


def test_what_is_refused_is_refused_by_workers_too(asked):
    pool = CorrectionPool(2, 10)
    with pytest.raises(mpc.ShapeError):
        list(pool.deal(KEYS, requests(asked)))


def test_after_a_refusal_the_next_gets_its_own(asked, right):
    pool = CorrectionPool(2, LIMIT)
    refused = [*requests(asked)[:5], Request(0, 1 << 40, b"Z"), *requests(asked)[5:]]
    for _ in range(2):
        with pytest.raises(mpc.ShapeError):
            list(pool.deal(OTHER_KEYS, refused))
        check(list(pool.deal(KEYS, requests(asked))), right)


def deal_in_another_thread(pool, asked):
    """As a session does: behind the with block, in a thread of its own."""
    dealt = []
    thread = threading.Thread(target=lambda: dealt.extend(pool.deal(KEYS, requests(asked))))
    thread.start()
    thread.join()
    return dealt


def test_joblib_chooses_where_workers_run(asked, right, monkeypatch):
    calls = []
    submit = ThreadingBackend.submit
    monkeypatch.setattr(
        ThreadingBackend, "submit", lambda *args, **more: calls.append(1) or submit(*args, **more)
    )
    with joblib.parallel_config("threading"):
        pool = CorrectionPool(2, LIMIT)
    check(deal_in_another_thread(pool, asked), right)
    assert len(calls) == 2 + len(asked)  # two to start with


class Elsewhere(ThreadingBackend):
    """Of joblib's own kind, but who knows where it sends its tasks?"""

    tasks = 0

    def submit(self, func, callback=None):
        Elsewhere.tasks += 1
        return super().submit(func, callback)


class OtherProcesses(MultiprocessingBackend):
    pass


@pytest.mark.parametrize("backend", [Elsewhere, OtherProcesses])
def test_keys_go_nowhere_else(backend):
    joblib.register_parallel_backend("elsewhere", backend)
    with (
        joblib.parallel_config("elsewhere"),
        pytest.raises(mpc.ArgumentError, match=f"own machine.* got {backend.__name__}"),
    ):
        CorrectionPool(2, LIMIT)
    assert Elsewhere.tasks == 0


def test_keys_do_not_go_to_dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, host="tcp://127.0.0.1"
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
        pytest.raises(mpc.ArgumentError, match="own machine.* got DaskDistributedBackend"),
    ):
        mpc.provider.service.ProviderService(None, workers=2)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_numbers_of_workers(workers):
    with pytest.raises(mpc.ArgumentError, match="workers must be a positive number"):
        mpc.provider.service.ProviderService(None, workers=workers)


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
