"""All parties as processes: results, errors, faults, and what is on the wire."""

import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import mpc
from mpc.core.correlation import Correlation
from mpc.launch import fingerprint, start
from mpc.provider.requests import read
from tests.helpers import programs

NAMES = ("alice", "bob", "carol")


@pytest.fixture(autouse=True)
def nothing_is_left_over():
    yield
    assert not programs.children("spawn_main")


def test_every_party_gets_its_own():
    names = NAMES
    found = mpc.launch(
        programs.several,
        names,
        prepare=True,
        inputs={"alice": ([3.0, 4.0],)} | dict.fromkeys(names[1:], (None,)),
    )
    assert list(found) == list(names)
    for name, (me, total, revealed, opened, text) in found.items():
        assert (me, total, opened) == (name, 25.0, True)
        if name == names[-1]:
            np.testing.assert_array_equal(revealed, [3.0, 4.0])
        else:
            assert revealed is None
        assert "parties=" in text


def test_bytes_on_the_wire_are_those_declared():
    batches = (1, 128, 1000)
    x = np.random.default_rng(1).random((1000, 64))
    found = mpc.launch(programs.classify_again, inputs={"alice": (batches,), "bob": (batches, x)})
    for rows, alice, bob in zip(batches, *found.values(), strict=True):
        for labels, cost, _, planned in (alice, bob):
            assert planned == cost
            assert cost.trips == alice[1].trips
            # A plan begins where nobody has waited yet, as only the first call does.
            assert rows != batches[0] or planned.trips == cost.trips
            assert planned.wire_bytes == pytest.approx(bob[1].wire_bytes, rel=0.01)
            assert planned.wire_correction_bytes == cost.wire_correction_bytes
            np.testing.assert_array_equal(labels, programs.network().predict(x[:rows]))
            assert cost.wire_bytes[0] == alice[1].wire_bytes[0]
        (_, _, (alice_sent, _), _), (_, cost, (bob_sent, bob_received), _) = alice, bob
        assert alice_sent == pytest.approx(cost.wire_bytes[0], rel=0.001)
        assert bob_sent == pytest.approx(cost.wire_bytes[1], rel=0.001)
        received = cost.wire_bytes[0] + cost.wire_correction_bytes
        assert bob_received == pytest.approx(received, rel=0.001)
        if rows >= 128:
            # There even headers, TLS and requests hardly count.
            assert sum(cost.total.sent) <= alice_sent + bob_sent <= 1.03 * sum(cost.total.sent)


@pytest.mark.parametrize("names", [("alice", "bob"), ("alice", "bob", "carol")], ids=len)
def test_a_network_that_all_state_decides_how_many_rounds_there_are(names):
    x = np.random.default_rng(2).random((5, 64))
    program = programs.OverAKnownNetwork(x)
    found = start(lambda _: program, names)
    for labels, cost, _, planned in found.values():
        np.testing.assert_array_equal(labels, programs.network().predict(x))
        assert planned == cost and planned.forms == cost.forms
        assert cost.by_protocol["relu"].rounds == 2 * len(cost.forms) > 0
        assert all(said.startswith("2 rounds: ") for said in cost.forms.values())


def test_corrections_arrive_while_another_party_is_waited_for(tmp_path):
    there = tmp_path / "there"
    found = mpc.launch(programs.receives_ahead, inputs=dict.fromkeys(("alice", "bob"), (there,)))
    first, *_, last = found["bob"]
    assert first >= 3
    assert last == 0


def test_corrections_may_be_taken_in_another_order():
    found = mpc.launch(programs.takes_corrections_in_another_order)
    assert found["alice"] == found["bob"]
    pairs, values = found["bob"]
    assert [len(bits) for bits, _ in pairs] == [5, 3]
    for bits, numbers in pairs:
        assert [int(bit) for bit in bits] == numbers
    assert values == [3, 0]


def test_a_plan_over_processes_takes_over_what_a_product_lacks():
    wanted = [[4.5, 0.0], [9.0, -16.0]] * 2
    assert mpc.launch(programs.prepares_for_a_product) == {"alice": wanted, "bob": wanted}


def test_one_partys_error_is_told_without_its_text_to_the_others():
    with pytest.raises(mpc.LaunchError, match="^bob: ZeroDivisionError") as caught:
        mpc.launch(programs.divides)
    assert (
        "bob stopped: ZeroDivisionError after round 0 in round 1 (relu)"
        in caught.value.errors["alice"]
    )
    assert "12345" not in caught.value.errors["alice"]


@pytest.mark.parametrize("program", [programs.other_shape, programs.other_format])
def test_parties_that_differ_notice(program):
    with pytest.raises(mpc.LaunchError, match="shapes|runs another program") as caught:
        mpc.launch(program)
    assert set(caught.value.errors) == {"alice", "bob"}
    assert "in round 1 (reveal)" in str(caught.value)
    # Integers of the owner are floats for the others, unless dtype= says so.
    assert "same shape=, dtype= and bound= of what any of them shares" in str(caught.value)


def test_what_cannot_be_launched():
    with pytest.raises(mpc.ArgumentError, match="other processes can import"):
        mpc.launch(lambda session: 1)
    with pytest.raises(mpc.PartyError, match="inputs must be for alice, bob"):
        mpc.launch(programs.divides, inputs={"eve": ()})
    with pytest.raises(
        mpc.ArgumentError, match=r"inputs\['alice'\] must be a tuple .* got ndarray"
    ):
        mpc.launch(programs.divides, inputs={"alice": np.ones(3)})
    with pytest.raises(mpc.LaunchError, match="did not finish in time"):
        mpc.launch(programs.work, inputs={"alice": (10**9,), "bob": (10**9,)}, timeout=4)


def test_programs_with_arguments_bound_are_named_without_them():
    """The name of a program travels; what it is called with may be a secret."""
    bound = functools.partial(functools.partial(programs.work, 12345), times=3)
    assert fingerprint(bound) == fingerprint(programs.work)
    assert "programs.Recorded" in fingerprint(programs.Recorded("somewhere"))
    found = mpc.launch(functools.partial(programs.work, times=2))
    assert found == {"alice": 1000.0, "bob": 1000.0}


def run_script(code, *, path=None):
    """Run a script, from its text or from a file; return what the first error says."""
    what = ["-c", code]
    if path is not None:
        path.write_text(code)
        what = [path]
    root = programs.__file__.rsplit("tests", 1)[0]
    done = subprocess.run(
        [sys.executable, *what], env={**os.environ, "PYTHONPATH": root}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


def test_a_function_of_an_interactive_session_is_refused_before_anything_starts():
    told = run_script("import mpc\ndef program(session): pass\nmpc.launch(program)")
    assert "ArgumentError: program must be a function that other processes can import" in told
    assert "write what a notebook or an interactive session defines into a file" in told
    # None has been started: it would have printed its own error.
    assert told.count("Traceback") == 1


def test_the_reason_of_a_process_that_cannot_begin_is_in_the_error(tmp_path):
    told = run_script(
        "import mpc\nfrom tests.helpers import programs\nclass Mine: pass\n"
        "mpc.launch(programs.work, inputs={'alice': (Mine(),), 'bob': (Mine(),)})"
    )
    last = told.rpartition("LaunchError: ")[2]
    told = "(alice|bob): ArgumentError: the process cannot import what it was given: "
    assert re.match(told, last)
    assert "AttributeError" in last and "'Mine'" in last and "into a file of its own" in last
    told = run_script(
        "import mpc\nfrom tests.helpers import programs\nmpc.launch(programs.divides)",
        path=tmp_path / "script.py",
    )
    last = told.rpartition("LaunchError: ")[2]
    assert re.match(
        "(alice|bob|provider): the process ended with exit code 1 before it began", last
    )
    assert 'must call mpc.launch below `if __name__ == "__main__":`' in last


def test_inputs_that_cannot_be_sent_are_named_by_their_party():
    with pytest.raises(mpc.ArgumentError, match="what bob is given cannot be sent to its process"):
        mpc.launch(programs.divides, inputs={"bob": (lambda: 1,)})


def test_the_provider_sees_ids_and_shapes_alone(tmp_path):
    path = tmp_path / "record.json"
    start(lambda _: programs.Recorded(path), ("alice", "bob"))
    records = [[], []]
    sessions = -1
    for peer, kind, data in json.loads(path.read_text()):
        # Two parties greet the provider for each session.
        sessions += kind == "HELLO"
        if kind not in ("HELLO", "READY"):
            records[sessions // 2].append((peer, kind, data))
    # Nothing that it receives depends on data or keys.
    assert records[0] == records[1]
    assert {kind for _, kind, _ in records[0]} == {"REQUEST"}
    assert {peer for peer, _, _ in records[0]} == {"bob"}
    requests = [request for *_, data in records[0] for request in read(bytes.fromhex(data))]
    # The hidden layer's truncation and ReLU, and the label's comparisons.
    assert len(requests) >= 2
    for request in requests:
        assert isinstance(request.correlation(1 << 20), Correlation)
        assert len(request.encoded) < 3000


def test_two_sessions_at_once():
    found = start(lambda _: programs.TwoSessions(), ("alice", "bob"))
    right = {(n, k): float(((np.arange(200) + n) ** 2).sum()) for n in range(2) for k in range(30)}
    assert found == {"alice": right, "bob": right}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_can_neither_use_nor_end_a_session():
    for said, revealed in start(lambda _: programs.Forking(), ("alice", "bob")).values():
        assert said[0].startswith("SessionError: the session belongs to the process")
        assert said[1:] == ["returned None", "ArithmeticError: in the child"]
        np.testing.assert_allclose(revealed, np.arange(50.0) ** 2)


def test_a_last_party_that_asks_for_something_else_reads_nothing():
    found = start(lambda _: programs.Forging(), ("alice", "bob"))
    secret = programs.Forging.SECRET
    result, read = found["bob"]
    # Nobody notices: all results are right.
    np.testing.assert_array_equal(found["alice"], secret)
    np.testing.assert_array_equal(result, secret)
    assert not set(read.tolist()) & set(secret.tolist())
    assert (np.abs(read) > 1 << 24).all()


def test_strangers_do_not_disturb():
    found = start(lambda _: programs.Strangers(), ("alice", "bob"))
    assert found == {"alice": 1000.0, "bob": 1000.0}


def test_a_launch_whose_parent_dies_ends():
    code = (
        "import mpc, os, threading\n"
        "from tests.helpers import programs\n"
        "if __name__ == '__main__':\n"
        "    threading.Timer(4, os._exit, (3,)).start()\n"
        "    mpc.launch(programs.work, inputs={'alice': (10**9,), 'bob': (10**9,)})\n"
    )
    path = programs.__file__.rsplit("tests", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=path, check=False, timeout=120)
    assert done.returncode == 3
