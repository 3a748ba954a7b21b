"""How rows are shared out, and how many threads there are."""

import os
import threading
import time
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring import get_num_threads, set_num_threads
from ring.errors import ArgumentError
from ring.threads import run

module = import_module("ring.threads")

TIMEOUT = 20


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setattr(module, "_threads", 0)
    monkeypatch.delenv("SOTTO_NUM_THREADS", raising=False)


class TestNumber:
    def test_default_is_the_cores_of_this_process(self):
        if not hasattr(os, "sched_getaffinity"):
            pytest.skip("this platform does not say which cores a process may use")
        assert get_num_threads() == len(os.sched_getaffinity(0))

    def test_set(self):
        set_num_threads(5)
        assert get_num_threads() == 5

    def test_variable(self, monkeypatch):
        monkeypatch.setenv("SOTTO_NUM_THREADS", "3")
        assert get_num_threads() == 3
        set_num_threads(2)
        assert get_num_threads() == 2

    def test_empty_variable(self, monkeypatch):
        before = get_num_threads()
        monkeypatch.setenv("SOTTO_NUM_THREADS", "")
        assert get_num_threads() == before

    @pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "\u00b2", " 2"])
    def test_wrong_variable(self, monkeypatch, value):
        monkeypatch.setenv("SOTTO_NUM_THREADS", value)
        with pytest.raises(ArgumentError, match=r"SOTTO_NUM_THREADS must be a whole number .* got"):
            get_num_threads()

    @pytest.mark.parametrize("value", [0, -1, 1.0, "2", None, True])
    def test_wrong_number(self, value):
        with pytest.raises(
            ArgumentError, match="threads must be a whole number of at least 1, got"
        ):
            set_num_threads(value)
        assert module._threads == 0


def pieces_of(rows, work, multiple, threads):
    """Return which ranges a kernel is called with, and by how many threads."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_threads", threads)
        run(
            lambda start, stop, *args: calls.append((start, stop, args, threading.get_ident())),
            rows, work, "a", "b", multiple=multiple,
        )  # fmt: skip
    assert all(args == ("a", "b") for _, _, args, _ in calls)
    return sorted((start, stop) for start, stop, _, _ in calls), {call[3] for call in calls}


class TestPieces:
    @given(
        st.integers(0, 300),
        st.sampled_from([0, 1, 1000, 100_000, 200_000, 10**9]),
        st.sampled_from([1, 2, 8, 64]),
        st.integers(1, 5),
    )
    def test_every_row_once(self, rows, work, multiple, threads):
        pieces, callers = pieces_of(rows, work, multiple, threads)
        assert [row for piece in pieces for row in range(*piece)] == list(range(rows))
        assert all(start % multiple == 0 for start, _ in pieces)
        assert len(pieces) <= threads
        assert len(callers) <= threads
        if rows * work < 2 * module.WORTHWHILE:
            assert callers <= {threading.get_ident()}
            assert len(pieces) == (rows > 0)

    @pytest.mark.parametrize("threads", [2, 3, 4])
    def test_large_work_is_shared_out(self, threads):
        pieces, callers = pieces_of(192, 10**6, 8, threads)
        assert len(pieces) == threads
        assert len(callers) > 1
        assert {stop - start for start, stop in pieces} == {192 // threads}

    def test_nothing_to_do(self):
        assert pieces_of(0, 10**9, 1, 4) == ([], set())

    def test_one_thread_calls_itself(self):
        assert pieces_of(100, 10**9, 1, 1) == ([(0, 100)], {threading.get_ident()})


class TestTogether:
    @pytest.fixture(autouse=True)
    def two(self, monkeypatch):
        monkeypatch.setattr(module, "_threads", 2)

    def test_pieces_run_at_the_same_time(self):
        meeting = threading.Barrier(2)
        run(lambda start, stop: meeting.wait(TIMEOUT), 2, 10**9)

    def test_callers_run_at_the_same_time(self):
        """Each caller's own piece waits for the other caller's."""
        meeting = threading.Barrier(2)
        done = []

        def kernel(start, stop, name):
            if start == 0:
                meeting.wait(TIMEOUT)
            done.append((name, start))

        callers = [
            threading.Thread(target=run, args=(kernel, 2, 10**9, name), daemon=True)
            for name in ("first", "second")
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(2 * TIMEOUT)
        assert sorted(done) == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]

    @pytest.mark.parametrize("at", [0, 1])
    def test_exception_reaches_the_caller(self, at):
        """Wherever it is raised, and only when no piece runs any more."""
        finished = []

        def kernel(start, stop):
            if start == at:
                raise ZeroDivisionError(f"piece {start}")
            time.sleep(0.05)
            finished.append(start)

        with pytest.raises(ZeroDivisionError, match=f"piece {at}"):
            run(kernel, 2, 10**9)
        assert finished == [1 - at]
        # The threads are still good for work.
        assert len(pieces_of(2, 10**9, 1, 2)[0]) == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_after_a_fork(self):
        """A child has none of its parent's threads, and starts its own."""
        assert len(pieces_of(2, 10**9, 1, 2)[0]) == 2
        child = os.fork()
        if not child:
            try:
                os._exit(0 if len(pieces_of(2, 10**9, 1, 2)[0]) == 2 else 1)
            finally:
                os._exit(2)
        for _ in range(100 * TIMEOUT):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.01)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        assert os.waitstatus_to_exitcode(status) == 0
