"""Files of watched parties: what is written was checked, and whoever changes its file is caught."""

import json
from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from mpc.core.errors import ABORTED, AbortError, DataError
from mpc.core.frames import Kind
from nn.core import archives
from nn.core.commitments import _digest_of_row
from nn.models.saved_shares import _public_digest
from tests.helpers.watched import NAMES, LostError, run
from tests.mpc.test_watched_parties import LINEAR, Tampering, X, fitted, flip, messages_of, passed

SECURE = {"parties": NAMES, "security": "malicious"}
TOP = np.uint64(1 << 63)


def save(folder):
    with mpc.Session(**SECURE) as session:
        return nn.save_shares(LINEAR.share(session, owner="alice", scores=True), folder)


def read(path):
    with np.load(path) as archive:
        arrays = dict(archive)
    return arrays, json.loads(arrays.pop("header").tobytes())


def write(path, arrays, header):
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, header=text, **arrays)


def scores(session, folder, change=None):
    """Load a model and reveal scores; `change(model)` is what a party does to its own shares of it."""
    model = nn.load_shares(session, folder)
    if change is not None:
        change(model)
    return model(model.share_rows(X, owner="bob")).reveal()


def honest(outcome, cheater):
    return [outcome.results[party] for party in range(3) if party != cheater]


# What is written.


def test_a_file_has_two_rows_their_salts_and_all_digests(tmp_path):
    files = [read(path) for path in save(tmp_path)]
    names = {nn.model_digest(tmp_path / f"{name}.npz") for name in NAMES}
    assert len(names) == 1
    digests = files[0][1]["digests"]
    assert len(set(digests)) == 3 and len(digests[0]) == 64
    salts = set()
    for party, (arrays, header) in enumerate(files):
        assert header["security"] == "malicious" and header["digests"] == digests
        after = files[(party + 1) % 3][0]
        for name in ("p0", "p1", "salts"):
            np.testing.assert_array_equal(arrays[name][1], after[name][0])
        salts.add(arrays["salts"][0].tobytes())
    # One process has neither the row of the third role nor its salt.
    assert len(salts) == 3
    total = sum(arrays["p0"][0] for arrays, _ in files).view(np.int64) / 65536
    np.testing.assert_allclose(total, LINEAR.parameters[0], atol=2.0**-16)


def test_shares_in_files_come_back_in_other_sessions(tmp_path):
    def program(session):
        nn.save_shares(LINEAR.share(session, owner="alice", scores=True), tmp_path)

    assert not run(program).errors
    outcome = run(lambda session: scores(session, tmp_path))
    assert not outcome.errors
    with mpc.Session(**SECURE) as session:
        found = [*outcome.results, scores(session, tmp_path)]
    for each in found:
        np.testing.assert_allclose(each, LINEAR.decision_function(X), atol=1e-3)


@pytest.fixture
def written(monkeypatch):
    """The paths of all files that were written, kept or not."""
    paths, write = [], archives.write

    def writing(path, *arguments, **options):
        paths.append(path)
        write(path, *arguments, **options)

    monkeypatch.setattr(archives, "write", writing)
    return paths


def test_no_file_is_written_or_kept_from_an_edited_message(tmp_path, written):
    def saving(folder):
        def program(session):
            own = folder / session.me
            nn.save_shares(LINEAR.share(session, owner="alice"), own)
            return True

        return program

    runs, kinds = run(saving(tmp_path / "honest")), set()
    assert runs.results == [True] * 3
    last = max(f[2] for f in runs.network.frames if f[3] is Kind.CHECK and f[0] == 0)
    for count, (sender, number) in enumerate(messages_of(runs)):
        folder = tmp_path / str(count)
        change = Tampering(sender, number, flip(np.random.default_rng(count), True))
        outcome = run(saving(folder), change)
        assert change.done == 1
        kinds.add((change.kind, change.public))
        for party in {0, 1, 2} - {sender}:
            found, kept = outcome.results[party], list(folder.glob(f"{NAMES[party]}/*"))
            if found is True:
                # Who was told the truth in the check at the end, after which the others have none.
                assert change.kind is Kind.CHECK and party != change.receiver
                continue
            assert isinstance(found, AbortError), (sender, number, found)
            assert not kept, (sender, number)
            if change.begun == 0 and change.kind is Kind.OPEN:
                assert folder / NAMES[party] / f"{NAMES[party]}.npz" not in written
    assert kinds == {(Kind.OPEN, False), (Kind.OPEN, True), (Kind.CHECK, False)} and last > 3


# Who computes on with other shares than it has saved.


def flipped(row):
    def change(model):
        for x in (p for layer in model.layers for p in layer.parameters):
            x.shares[row].reshape(-1)[:1] ^= TOP

    return change


def swapped(model):
    for x in (p for layer in model.layers for p in layer.parameters):
        x.shares[:] = x.shares[::-1].copy()


def replayed(older):
    """Return what puts in the rows of another file: of an earlier set, or of another session."""

    def change(model):
        arrays, _ = read(older / f"{model.session.me}.npz")
        for k, x in enumerate(p for layer in model.layers for p in layer.parameters):
            x.shares[:] = arrays[f"p{k}"]

    return change


@pytest.mark.parametrize("cheater", range(3))
@pytest.mark.parametrize(
    "how", ["its own row", "the row that it watches", "swapped", "an older set"]
)
def test_who_computes_with_other_rows_is_caught_before_anything_is_revealed(how, cheater, tmp_path):
    save(tmp_path / "older")
    save(tmp_path / "saved")
    change = {
        "its own row": flipped(0), "the row that it watches": flipped(1), "swapped": swapped,
        "an older set": replayed(tmp_path / "older"),
    }[how]  # fmt: skip

    def program(session):
        mine = session.me == NAMES[cheater]
        return scores(session, tmp_path / "saved", change if mine else None)

    outcome = run(program)
    for party in {0, 1, 2} - {cheater}:
        found = outcome.results[party]
        assert isinstance(found, AbortError) and str(found) == ABORTED
        assert passed(outcome, party) == 1  # of what the files are, and none behind it


# Files that were changed.


@pytest.mark.parametrize("cheater", range(3))
@pytest.mark.parametrize("row", range(2))
def test_a_party_with_an_edited_file_is_told_so_and_nobody_loads(row, cheater, tmp_path):
    path = save(tmp_path)[cheater]
    arrays, header = read(path)
    arrays["p1"][row, 0] ^= TOP
    write(path, arrays, header)
    outcome = run(lambda session: scores(session, tmp_path))
    error = outcome.results[cheater]
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path} is damaged: its shares are not those of its digests")
    assert all(isinstance(each, LostError) for each in honest(outcome, cheater))

    # With new digests of the edited rows all parties see that the sets differ.
    rows = {name: words for name, words in arrays.items() if name in ("p0", "p1")}
    beside = {n: words for n, words in arrays.items() if n not in (*rows, "salts")}
    role = (cheater + row) % 3
    salt, public = arrays["salts"][row].tobytes(), _public_digest(header, beside)
    header["digests"][role] = _digest_of_row(role, salt, public, rows, row).hex()
    write(path, arrays, header)
    outcome = run(lambda session: scores(session, tmp_path))
    for error in outcome.results:
        assert isinstance(error, DataError) and "are not of one set" in str(error)


@pytest.mark.parametrize("cheater", range(3))
def test_a_file_of_another_set_is_refused_by_all(cheater, tmp_path):
    other = save(tmp_path / "other")[cheater]
    path = save(tmp_path / "saved")[cheater]
    path.write_bytes(other.read_bytes())
    outcome = run(lambda session: scores(session, tmp_path / "saved"))
    assert all("are not of one set" in str(error) for error in outcome.results)


@pytest.mark.parametrize("receivers", [(1,), (0,), (0, 1)])
def test_who_says_that_it_has_another_set_ends_the_session(receivers, tmp_path):
    save(tmp_path)

    def lie(message):
        if message.sender == 2 and message.public and message.receiver in receivers:
            message.arrays[0][:] ^= TOP

    outcome = run(lambda session: scores(session, tmp_path), lie)
    for error in outcome.results[:2]:
        if len(receivers) == 1:
            assert isinstance(error, AbortError)
        else:  # all are told the same
            assert isinstance(error, (DataError, LostError))


def test_files_of_another_security_are_refused(tmp_path):
    save(tmp_path / "malicious")
    with mpc.Session(NAMES) as session:
        nn.save_shares(LINEAR.share(session, owner="alice"), tmp_path / "semi-honest")
        with pytest.raises(DataError, match="security must be 'semi-honest', got 'malicious'"):
            nn.load_shares(session, tmp_path / "malicious")
    with (
        mpc.Session(**SECURE) as session,
        pytest.raises(DataError, match="security must be 'malicious', got 'semi-honest'"),
    ):
        nn.load_shares(session, tmp_path / "semi-honest")


def test_costs_are_what_is_said(tmp_path):
    with mpc.Session(**SECURE) as session:
        shared = LINEAR.share(session, owner="alice")
        before = session.cost()
        nn.save_shares(shared, tmp_path)
        saved = session.cost()
        nn.load_shares(session, tmp_path)
        costs = saved - before, session.cost() - saved
    for spent, text, function in zip(
        costs, ("4 rounds, 112 bytes", "2 rounds, 80 bytes"), (nn.save_shares, nn.load_shares),
        strict=True,
    ):  # fmt: skip
        assert text == f"{spent.rounds} rounds, {spent.bytes_sent_per_party} bytes"
        assert text in function.__doc__


# Checkpoints.


def weights(model):
    return model.reveal().layers[0].weights


def trained(folder):
    assert not run(lambda session: fitted(session, folder)).errors
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("cheater", range(3))
def test_an_edited_checkpoint_is_noticed(cheater, tmp_path):
    kept = trained(tmp_path)
    assert len(kept) == 3
    path = tmp_path / f"checkpoint-{NAMES[cheater]}.npz"
    arrays, header = read(path)
    arrays["weights"][cheater % 2, 0] ^= TOP
    write(path, arrays, header)
    outcome = run(lambda session: weights(fitted(session, tmp_path, resume=True)))
    assert "not those of its digests" in str(outcome.results[cheater])
    assert all(isinstance(each, LostError) for each in honest(outcome, cheater))


@pytest.mark.parametrize("cheater", range(3))
def test_who_resumes_with_other_shares_is_caught(cheater, tmp_path, monkeypatch):
    trained(tmp_path)
    load = nn.shared.fit.load

    def cheating(folder, trainer, *rest):
        found = load(folder, trainer, *rest)
        if trainer.session.me == NAMES[cheater]:
            trainer.weights.shares[0, :1] ^= TOP
        return found

    monkeypatch.setattr(nn.shared.fit, "load", cheating)
    outcome = run(lambda session: weights(fitted(session, tmp_path, resume=True)))
    assert all(isinstance(each, AbortError) for each in honest(outcome, cheater))


@pytest.mark.parametrize("receiver", [0, 1])
def test_who_tells_others_of_different_checkpoints_moves_no_file(receiver, tmp_path):
    kept = trained(tmp_path)

    def hide(message):
        if message.sender == 2 and message.public and message.receiver == receiver:
            message.arrays[0][:] = 0

    outcome = run(lambda session: weights(fitted(session, tmp_path, resume=True)), hide)
    assert all(isinstance(each, AbortError) for each in outcome.results[:2])
    assert kept == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("sender", range(3))
def test_no_checkpoint_is_written_after_an_edited_message(sender, tmp_path):
    clean = run(lambda session: fitted(session, tmp_path / "clean"))
    digests = [f[2] for f in clean.network.frames if f[0] == sender and f[5] == [(4,)]]
    assert len(digests) == 1
    for count, number in enumerate((0, 3, 9, *digests)):
        folder = tmp_path / str(count)
        change = Tampering(sender, number, flip(np.random.default_rng(number), True))
        outcome = run(lambda session, folder=folder: fitted(session, folder), change)
        assert change.done == 1
        assert all(isinstance(each, AbortError) for each in honest(outcome, sender))
        names = {path.name for path in folder.glob("*")}
        assert names <= {f"checkpoint-{NAMES[sender]}.npz"}


def test_checkpoints_of_another_security_are_refused(tmp_path):
    trained(tmp_path)
    with mpc.Session(NAMES) as session, pytest.raises(DataError, match="must be of security"):
        fitted(session, tmp_path, resume=True)
