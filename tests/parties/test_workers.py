"""Predictions spread over workers: the same answers, whoever is killed, and nothing left over."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest

import mpc
from mpc.parties import configuration
from mpc.workers import pool, spread
from tests.helpers import spread_programs as programs
from tests.helpers.programs import network

NAMES = ("alice", "bob", "carol")


def ran(folder):
    """Return (party, pid, session) of every part that was begun."""
    return [tuple(path.name.split(".")) for path in folder.iterdir() if "strike" not in path.name]


@pytest.mark.parametrize("names", [NAMES[:2], NAMES], ids=["two", "three"])
def test_models_give_the_same_answers(names):
    # Workers have an auditor if their parties have one.
    found = mpc.launch(programs.models, names, auditor=len(names) == 3, audit_rate=1.0)
    plain = network()
    labels = plain.predict(programs.images())
    for name, got in found.items():
        for way in ("labels", "alone", "shares", "after"):
            np.testing.assert_array_equal(got[way], labels, err_msg=f"{name} {way}")
        if name == "alice":
            np.testing.assert_array_equal(got["to alice"], labels)
        else:
            assert got["to alice"] is None
        by_default, few, times, times_in_all = got["by default"]
        assert times >= 1, "parties.toml is not followed"
        assert times_in_all == times, "few rows are spread, or what n_jobs=1 asks for"
        np.testing.assert_array_equal(by_default, labels)
        np.testing.assert_array_equal(few, labels[:-1])
        scores = plain.decision_function(programs.images())
        np.testing.assert_allclose(got["scores"], scores, atol=1e-3)
        values = programs.regressor().predict(programs.features())
        np.testing.assert_allclose(got["values"], values, atol=1e-3)
        others = "".join(f", {other} has 3" for other in names[1:])
        assert got["mismatch"] == (
            f"ArgumentError: n_jobs must be the same at all parties: alice has 2{others}"
        )
    spent = found["alice"]["spent"]
    assert all(got["spent"] == spent for got in found.values())
    # Of two halves at once, as many rounds as of one, and all of the bytes.
    assert spent == found["alice"]["planned"]
    assert spent.bytes_sent_per_party > 8 * programs.ROWS * 64 > 0
    assert 0 < spent.rounds < 40


def test_two_parties_alone_spread_their_predictions():
    found = mpc.launch(programs.predicts, NAMES[:2], provider=None)
    plain = network()
    for labels, scores in found.values():
        np.testing.assert_array_equal(labels, plain.predict(programs.images()))
        np.testing.assert_allclose(scores, plain.decision_function(programs.images()), atol=1e-3)


def launched(
    tmp_path, harm, times, names=NAMES[:2], answer_timeout=20.0, victims=("bob",), provider="crypto"
):
    inputs = dict.fromkeys(names, (tmp_path, harm, times, victims))
    return mpc.launch(
        programs.harmed, names, inputs=inputs, answer_timeout=answer_timeout, provider=provider
    )


@pytest.mark.parametrize(
    ("names", "provider"), [(NAMES, "crypto"), (NAMES[:2], None)], ids=["three", "alone"]
)
def test_a_killed_workers_part_is_done_again_with_fresh_keys(tmp_path, names, provider):
    found = launched(tmp_path, "kill", 1, names, provider=provider)
    for (first, _), second, own in found.values():
        np.testing.assert_allclose(first, programs.expected(), atol=1e-3)
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)
        assert str(own) not in {pid for _, pid, _ in ran(tmp_path / "first")}
    parts = ran(tmp_path / "first")
    sessions = {session for _, _, session in parts}
    # Two parts and at least one of them again, and each time is a session of its own.
    assert len(sessions) >= 3
    for session in sessions:
        parties = [party for party, _, which in parts if which == session]
        assert len(parties) == len(set(parties))
    assert len({pid for party, pid, _ in parts if party == "bob"}) >= 3
    assert len({pid for party, pid, _ in ran(tmp_path / "second") if party == "bob"}) == 2


def test_a_program_that_fails_is_an_error_everywhere_and_nothing_more(tmp_path):
    found = launched(tmp_path, "raise", 1)
    (alice, _), (bob, _) = found["alice"][0], found["bob"][0]
    assert bob.startswith("WorkerError: part ")
    assert bob.endswith("failed at a worker of bob: ZeroDivisionError: 12345 is a secret")
    assert "failed at a worker of bob, and its error says why" in alice
    assert "12345" not in alice
    for _, second, _ in found.values():
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)


def test_what_is_lost_again_and_again_is_an_error_everywhere(tmp_path):
    # Both parts in each of two tries, and one or both in the third.
    found = launched(tmp_path, "kill", 6)
    for (text, _), second, _ in found.values():
        assert text.startswith("WorkerError: ")
        assert "was lost 3 times" in text or "workers were lost" in text
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)


def test_a_worker_that_stalls_is_given_up(tmp_path):
    found = launched(tmp_path, "stop", 1, answer_timeout=3.0)
    for (first, _), second, _ in found.values():
        np.testing.assert_allclose(first, programs.expected(), atol=1e-3)
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)


def test_when_all_workers_of_all_parties_stall_others_do_their_parts(tmp_path):
    """Nobody closes a connection and nobody reports a loss, as when their machines vanish."""
    found = launched(tmp_path, "stop", 4, answer_timeout=3.0, victims=NAMES[:2])
    assert len(list((tmp_path / "first").glob("strike*"))) == 4
    for (first, _), second, _ in found.values():
        np.testing.assert_allclose(first, programs.expected(), atol=1e-3)
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)


def test_when_all_workers_stall_at_every_try_a_timeout_names_them(tmp_path):
    found = launched(tmp_path, "stop", 1000, answer_timeout=3.0, victims=NAMES[:2])
    for name, ((text, _), second, _) in found.items():
        assert re.fullmatch(
            rf"WorkerError: part \d of [12] was lost 3 times at a worker of {name}: a worker of {name}"
            r" at 127\.0\.0\.1:\d+ did not answer within 3 s",
            text,
        ), text
        np.testing.assert_allclose(second, programs.expected(), atol=1e-3)


def test_a_worker_that_computes_for_longer_than_the_timeout_is_waited_for(tmp_path):
    found = launched(tmp_path, "sleep", 4, answer_timeout=3.0, victims=NAMES[:2])
    for (first, _), *_ in found.values():
        np.testing.assert_allclose(first, programs.expected(), atol=1e-3)
    # Two parts, each of them once.
    assert len({session for _, _, session in ran(tmp_path / "first")}) == 2


def test_a_party_that_is_killed_takes_its_workers_along(tmp_path):
    def strike():
        while not (tmp_path / "pid").exists() or len(ran(tmp_path)) < 3:
            time.sleep(0.05)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    threading.Thread(target=strike, daemon=True).start()
    inputs = dict.fromkeys(NAMES[:2], (tmp_path,))
    with pytest.raises(mpc.LaunchError, match="bob: the process ended with exit code -9") as caught:
        mpc.launch(programs.stalls, inputs=inputs, timeout=60)
    assert "bob closed the connection" in caught.value.errors["alice"]


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, True, "2"])
def test_numbers_of_workers_that_are_none(n_jobs):
    with mpc.Session() as s:
        model = network().share(s, owner="alice", low=0, high=1)
        x = model.share_rows(programs.images(), owner="bob")
        before = s.cost()
        with pytest.raises(mpc.ArgumentError, match="n_jobs must be a whole number of at least 1"):
            model.predict(x, n_jobs=n_jobs)
        assert s.cost() == before


def test_where_all_parties_live_in_one_process_there_are_no_workers():
    with mpc.Session() as s:
        model = network().share(s, owner="alice", low=0, high=1)
        x = model.share_rows(programs.images(), owner="bob")
        with pytest.raises(mpc.ArgumentError, match="workers are for parties apart"):
            model.predict(x, n_jobs=2)
        np.testing.assert_array_equal(
            model.predict(x, n_jobs=1), network().predict(programs.images())
        )


def test_parties_toml_says_how_many(tmp_path):
    path = configuration.write_example(tmp_path / "trial")
    text = path.read_text().replace("[provider]", "[workers]\nn_jobs = 2\nrows = 50\n\n[provider]")
    text = text.replace('key = "bob.key"', 'key = "bob.key"\nscheduler = "tcp://10.0.0.1:8786"')
    path.write_text(text)
    read = configuration.load(path)
    assert (read.workers.n_jobs, read.workers.rows) == (2, 50)
    assert read.parties["bob"].scheduler == "tcp://10.0.0.1:8786"
    assert read.parties["alice"].scheduler is None
    for old, new, message in (
        ("n_jobs = 2", "n_jobs = 0", "n_jobs must be a whole number of at least 1, or -1, got 0"),
        ("rows = 50", "rows = 1.5", "rows must be a whole number of at least 1, got 1.5"),
        ("rows = 50", "row = 50", "no 'row' goes here, only n_jobs, rows"),
        ('scheduler = "tcp://10.0.0.1:8786"', "scheduler = 1", "scheduler must be a string"),
    ):
        path.write_text(text.replace(old, new))
        line = text[: text.index(old)].count("\n") + 1
        with pytest.raises(mpc.ConfigurationError, match=f"line {line}: {message}"):
            configuration.load(path)


def test_every_party_on_its_own_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as first,
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as second,
    ):
        clusters = {"alice": first, "bob": second}
        # Processes that were there before the work, and that nobody has given any but this way.
        before = {
            name: {str(w.pid) for w in cluster.workers.values()}
            for name, cluster in clusters.items()
        }
        inputs = {n: (tmp_path, c.scheduler_address) for n, c in clusters.items()}
        found = mpc.launch(programs.on_dask, inputs=inputs, answer_timeout=20)
        for name, cluster in clusters.items():
            with distributed.Client(cluster, set_as_default=False) as client:
                assert not any(client.processing().values()), name
    for name, ((first_result, _), second_result, _, spread_over_all, alone) in found.items():
        np.testing.assert_allclose(first_result, programs.expected(), atol=1e-3)
        np.testing.assert_allclose(second_result, programs.expected(), atol=1e-3)
        np.testing.assert_array_equal(spread_over_all, alone, err_msg=name)
    parts = ran(tmp_path / "first")
    pids = {name: {pid for party, pid, _ in parts if party == name} for name in clusters}
    assert pids["alice"] <= before["alice"]
    assert pids["bob"] & before["bob"]
    assert len({session for *_, session in parts}) >= 3


@pytest.mark.parametrize(
    ("states", "together"),
    [
        ([pool.DONE, pool.DONE], pool.DONE),
        ([pool.DONE, pool.RUNNING], pool.RUNNING),
        ([pool.DONE, pool.LOSS], pool.LOSS),
        ([pool.RUNNING, pool.LOSS], pool.LOSS),
        ([pool.LOSS, pool.FAILURE, pool.DONE], pool.FAILURE),
    ],
)
def test_what_one_party_has_lost_is_lost_for_all(states, together):
    for order in (states, states[::-1]):
        assert spread.joint_state(order) == together
