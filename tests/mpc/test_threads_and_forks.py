"""A session serves one process, and in it one thread at a time."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mpc
from tests.helpers.processes import in_child

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def often():
    """Let threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def elsewhere(function):
    """Run in a thread of its own; return what it returns or raises."""
    found = []

    def call():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call, name="elsewhere")
    thread.start()
    thread.join()
    return found[0]


def computed(s, a, b):
    x, y = s.share(a, owner="alice"), s.share(b, owner="bob")
    return (x * y).relu().reveal()


def run_threads(work, count=4):
    """Run ``work(k, note)`` in threads that begin together; return what they noted."""
    noted, start = [], threading.Barrier(count)

    def run(k):
        start.wait()
        work(k, noted.append)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return noted


def test_four_threads_get_right_numbers_or_are_refused(often):
    a, b = np.linspace(-5, 5, 300), np.linspace(3, -7, 300)
    want = np.maximum(a * b, 0)
    with mpc.Session() as s:
        together = threading.Barrier(4)

        def work(k, note):
            for _ in range(50):
                try:
                    note((k, np.abs(computed(s, a + k, b) - np.maximum((a + k) * b, 0)).max()))
                except mpc.SessionError as error:
                    note((k, str(error)))
            together.wait()  # so that no one is gone while others try

        noted = run_threads(work)
        right = {k for k, found in noted if not isinstance(found, str)}
        assert len(noted) == 200
        assert len(right) == 1
        (owner,) = right
        for k, found in noted:
            if k == owner:
                assert found < 2**-15
            else:
                assert found.startswith("the session belongs to the thread 'Thread-")
                assert "Make a session for each thread" in found
        # They are gone, and nothing of theirs is left.
        np.testing.assert_allclose(computed(s, a, b), want, rtol=0, atol=2**-15)


def test_threads_that_hand_over_in_turn(often):
    a, b = np.linspace(-5, 5, 100), np.linspace(3, -7, 100)
    turn = threading.Lock()
    with mpc.Session() as s:

        def work(k, note):
            for _ in range(20):
                with turn:
                    note(np.abs(computed(s, a + k, b) - np.maximum((a + k) * b, 0)).max())
                    s.hand_over()

        noted = run_threads(work)
        assert len(noted) == 80
        assert max(noted) < 2**-15


def test_a_session_each(often):
    def work(k, note):
        with mpc.Session() as s:
            for _ in range(20):
                note(float(computed(s, 1.0 + k, 2.0)) == 2.0 + 2 * k)

    assert run_threads(work) == [True] * 80


def test_one_thread_after_another_has_ended():
    with mpc.Session() as s:
        for k in range(3):
            x = elsewhere(lambda k=k: s.share(np.full(3, float(k)), owner="alice"))
            assert elsewhere(lambda x=x: (x * x).reveal().tolist()) == [k * k] * 3
        assert float(computed(s, 2.0, 3.0)) == 6.0
    with pytest.raises(mpc.SessionError, match="closed"):
        x.reveal()


def test_handing_over():
    with mpc.Session() as s:
        x = s.share([1.0, -2.0], owner="alice")
        y = x * x
        refused = elsewhere(s.hand_over)
        assert isinstance(refused, mpc.SessionError)
        s.hand_over()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(y.reveal).result().tolist() == [1.0, 4.0]
            # That thread lives, and has the session now.
            with pytest.raises(mpc.SessionError, match="belongs to the thread 'ThreadPool"):
                y.reveal()
            pool.submit(s.hand_over).result()
            assert y.reveal().tolist() == [1.0, 4.0]


EVERYTHING = {
    "share": lambda s, x: s.share(1.0, owner="bob"),
    "reveal": lambda s, x: x.reveal(),
    "reveal to one": lambda s, x: s.reveal(x, to="bob"),
    "sum": lambda s, x: x + x,
    "public": lambda s, x: 2 * x - 1,
    "negative": lambda s, x: -x,
    "product": lambda s, x: x * x,
    "matrices": lambda s, x: x @ x.T,
    "division": lambda s, x: x / 3,
    "index": lambda s, x: x[0],
    "total": lambda s, x: x.sum(),
    "mean": lambda s, x: x.mean(),
    "largest": lambda s, x: x.max(),
    "argmax": lambda s, x: x.argmax(axis=1),
    "order": lambda s, x: x < 0,
    "equality": lambda s, x: x == x,
    "relu": lambda s, x: x.relu(),
    "softmax": lambda s, x: x.softmax(),
    "tanh": lambda s, x: np.tanh(x),
    "where": lambda s, x: np.where(x < 0, x, -x),
    "stack": lambda s, x: np.stack([x, x]),
    "truncate": lambda s, x: (x * x).truncate(),
    "mask": lambda s, x: x.mask_data(),
    "shares": lambda s, x: x.shares,
    "plan": lambda s, x: s.plan(lambda p: p.share(1.0, owner="alice").reveal()),
    "prepare": lambda s, x: s.prepare(lambda p: p.twin(x).reveal()),
    "id": lambda s, x: s.fresh_id(),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_another_thread_is_refused(name):
    with mpc.Session() as s:
        x = s.share(np.eye(3), owner="alice")
        used, spent = s.last_id, s.cost()
        error = elsewhere(lambda: EVERYTHING[name](s, x))
        assert isinstance(error, mpc.SessionError), error
        assert "belongs to the thread 'MainThread' and was used by 'elsewhere'" in str(error)
        assert (s.last_id, s.cost()) == (used, spent)


@needs_fork
@pytest.mark.parametrize("name", EVERYTHING)
def test_what_a_forked_child_is_refused(name):
    with mpc.Session() as s:
        x = s.share(np.eye(3), owner="alice")
        said = in_child(lambda: EVERYTHING[name](s, x) and "something")
        assert said.startswith(
            f"SessionError: the session belongs to the process {os.getpid()}, which this one, "
        )
        assert said.endswith("make a session of its own after the fork")
        np.testing.assert_array_equal(x.reveal(), np.eye(3))


@needs_fork
def test_a_forked_childs_own_session_and_its_parents():
    with mpc.Session() as s:
        x = s.share([2.0, 3.0], owner="alice")

        def child():
            with mpc.Session() as own:
                found = computed(own, np.array([2.0]), np.array([5.0])).tolist()
            # Ending the parent's ends nothing of the parent's.
            s.close()
            return found, ", closed" in repr(s), s.streams, s.source.provider

        assert in_child(child) == "returned ([10.0], True, {}, None)"
        assert in_child(lambda: in_child(lambda: computed(s, 1.0, 1.0))).count("SessionError") == 1
        assert (x * x).reveal().tolist() == [4.0, 9.0]


@needs_fork
def test_a_forked_thread_that_never_used_the_session_is_refused_too():
    with mpc.Session() as s:
        # Free, so that no thread of the parent has it.
        assert in_child(lambda: computed(s, 1.0, 1.0)).startswith("SessionError")
