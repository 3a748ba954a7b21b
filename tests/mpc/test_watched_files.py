"""Files of watched parties, three to five: what is written was checked, who changes its file is caught."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from mpc.core.errors import ABORTED, AbortError, DataError
from mpc.core.frames import Kind
from nn.core import archives
from nn.core.commitments import _digest_of_row, commit
from nn.models.saved_shares import _public_digest
from tests.helpers.watched import MORE, LostError, run
from tests.mpc.test_watched_parties import (
    EVERY,
    LINEAR,
    Tampering,
    X,
    fitted,
    flip,
    messages_of,
    passed,
)  # fmt: skip

SIZES = (3, 4, 5)
# Each party of three, some of more.
CHEATERS = [(3, 0), (3, 1), (3, 2), (4, 0), (4, 3), (5, 2)]
TOP = np.uint64(1 << 63)


def together(parties):
    """Return a session in which so many parties live."""
    return mpc.Session(MORE[:parties], security="malicious")


def save(folder, parties=3):
    with together(parties) as session:
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
    return [found for party, found in enumerate(outcome.results) if party != cheater]


# What is written.


@pytest.mark.parametrize("parties", SIZES)
def test_a_file_has_two_rows_their_salts_and_all_digests(parties, tmp_path):
    files = [read(path) for path in save(tmp_path, parties)]
    names = {nn.model_digest(tmp_path / f"{name}.npz") for name in MORE[:parties]}
    assert len(names) == 1
    digests = files[0][1]["digests"]
    assert len(set(digests)) == parties and len(digests[0]) == 64
    salts = set()
    for party, (arrays, header) in enumerate(files):
        assert header["security"] == "malicious" and header["digests"] == digests
        after = files[(party + 1) % parties][0]
        for name in ("p0", "p1", "salts"):
            np.testing.assert_array_equal(arrays[name][1], after[name][0])
        salts.add(arrays["salts"][0].tobytes())
    # One process has neither the rows of other roles nor their salts.
    assert len(salts) == parties
    for arrays, _ in files:
        assert all(arrays[name].shape[:1] == (2,) for name in ("p0", "p1", "salts"))
    total = sum(arrays["p0"][0] for arrays, _ in files).view(np.int64) / 65536
    np.testing.assert_allclose(total, LINEAR.parameters[0], atol=2.0**-16)


@pytest.mark.parametrize("parties", SIZES)
def test_shares_in_files_come_back_in_other_sessions(parties, tmp_path):
    def program(session):
        nn.save_shares(LINEAR.share(session, owner="alice", scores=True), tmp_path)

    assert not run(program, parties=parties).errors
    outcome = run(lambda session: scores(session, tmp_path), parties=parties)
    assert not outcome.errors
    with together(parties) as session:
        found = [*outcome.results, scores(session, tmp_path)]
    for each in found:
        np.testing.assert_allclose(each, LINEAR.decision_function(X), atol=1e-3)


@pytest.mark.parametrize("how", ["shares", "a checkpoint"])
@pytest.mark.parametrize(("parties", "cheater"), [(3, 1), (4, 1), (4, 0), (5, 0), (5, 1)])
def test_who_does_not_know_what_was_wrong_writes_no_file_either(
    how, parties, cheater, tmp_path, written
):
    """What is opened to one role alone is known to its holders and to who watches the sender."""

    def program(session):
        x = session.share(X, owner="alice") * session.share(X, owner="bob")
        session.open_to(parties - 1, x.shares.copy())
        if how == "shares":
            nn.save_shares(LINEAR.share(session, owner="alice"), tmp_path / session.me)
        else:
            fitted(session, tmp_path / session.me)

    def spoil(message):
        if message.sender == cheater and message.kind is Kind.REVEAL:
            spoilt.append(message.receiver)
            message.arrays[0][:] ^= TOP

    spoilt = []
    outcome = run(program, spoil, parties=parties)
    assert spoilt
    others = set(range(parties)) - {cheater}
    aborted = {party for party in others if isinstance(outcome.results[party], AbortError)}
    # Those who know stop, and the others, who are told so by them, too.
    assert aborted == others
    assert not [path for path in written if path.parent.name != MORE[cheater]]


@pytest.fixture
def written(monkeypatch):
    """The paths of all files that were written, kept or not."""
    paths, write = [], archives.write

    def writing(path, *arguments, **options):
        paths.append(path)
        write(path, *arguments, **options)

    monkeypatch.setattr(archives, "write", writing)
    return paths


@pytest.mark.parametrize("parties", SIZES)
def test_no_file_is_written_or_kept_from_an_edited_message(parties, tmp_path, written):
    def saving(folder):
        def program(session):
            own = folder / session.me
            nn.save_shares(LINEAR.share(session, owner="alice"), own)
            return True

        return program

    runs, kinds = run(saving(tmp_path / "honest"), parties=parties), set()
    assert runs.results == [True] * parties
    last = max(f[2] for f in runs.network.frames if f[3] is Kind.CHECK and f[0] == 0)
    messages = messages_of(runs)[:: 1 if EVERY else {3: 1, 4: 2, 5: 6}[parties]]
    for count, (sender, number) in enumerate(messages):
        folder = tmp_path / str(count)
        change = Tampering(sender, number, flip(np.random.default_rng(count), True))
        outcome = run(saving(folder), change, parties=parties)
        assert change.done == 1
        kinds.add((change.kind, change.public))
        for party in set(range(parties)) - {sender}:
            found, kept = outcome.results[party], list(folder.glob(f"{MORE[party]}/*"))
            if found is True:
                # Who was told the truth in the check at the end, after which the others have none.
                assert change.kind is Kind.CHECK and party != change.receiver
                continue
            assert isinstance(found, AbortError), (sender, number, found)
            assert not kept, (sender, number)
            if change.begun == 0 and change.kind is Kind.OPEN:
                assert folder / MORE[party] / f"{MORE[party]}.npz" not in written
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


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
@pytest.mark.parametrize(
    "how", ["its own row", "the row that it watches", "swapped", "an older set"]
)
def test_who_computes_with_other_rows_is_caught_before_anything_is_revealed(
    how, parties, cheater, tmp_path
):
    save(tmp_path / "older", parties)
    save(tmp_path / "saved", parties)
    change = {
        "its own row": flipped(0), "the row that it watches": flipped(1), "swapped": swapped,
        "an older set": replayed(tmp_path / "older"),
    }[how]  # fmt: skip

    def program(session):
        mine = session.me == MORE[cheater]
        return scores(session, tmp_path / "saved", change if mine else None)

    outcome = run(program, parties=parties)
    for party in set(range(parties)) - {cheater}:
        found = outcome.results[party]
        assert isinstance(found, AbortError) and str(found) == ABORTED
        assert passed(outcome, party) == 1  # of what the files are, and none behind it


# Files that were changed.


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
@pytest.mark.parametrize("row", range(2))
def test_a_party_with_an_edited_file_is_told_so_and_nobody_loads(row, parties, cheater, tmp_path):
    path = save(tmp_path, parties)[cheater]
    arrays, header = read(path)
    arrays["p1"][row, 0] ^= TOP
    write(path, arrays, header)
    outcome = run(lambda session: scores(session, tmp_path), parties=parties)
    error = outcome.results[cheater]
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path} is damaged: its shares are not those of its digests")
    assert all(isinstance(each, LostError) for each in honest(outcome, cheater))

    # With new digests of the edited rows all parties see that the sets differ.
    rows = {name: words for name, words in arrays.items() if name in ("p0", "p1")}
    beside = {n: words for n, words in arrays.items() if n not in (*rows, "salts")}
    role = (cheater + row) % parties
    salt, public = arrays["salts"][row].tobytes(), _public_digest(header, beside)
    header["digests"][role] = _digest_of_row(role, salt, public, rows, row).hex()
    write(path, arrays, header)
    outcome = run(lambda session: scores(session, tmp_path), parties=parties)
    for error in outcome.results:
        assert isinstance(error, DataError) and "are not of one set" in str(error)


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
def test_a_file_of_another_set_is_refused_by_all(parties, cheater, tmp_path):
    other = save(tmp_path / "other", parties)[cheater]
    path = save(tmp_path / "saved", parties)[cheater]
    path.write_bytes(other.read_bytes())
    outcome = run(lambda session: scores(session, tmp_path / "saved"), parties=parties)
    assert all("are not of one set" in str(error) for error in outcome.results)


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
def test_a_file_of_another_party_is_refused(parties, cheater, tmp_path):
    paths = save(tmp_path, parties)
    paths[cheater].write_bytes(paths[cheater - 1].read_bytes())
    outcome = run(lambda session: scores(session, tmp_path), parties=parties)
    name = f"party must be {MORE[cheater]!r}, got {MORE[(cheater - 1) % parties]!r}"
    assert name in str(outcome.results[cheater])
    assert all(isinstance(each, LostError) for each in honest(outcome, cheater))
    arrays, header = read(paths[cheater])
    write(paths[cheater], arrays, {**header, "party": MORE[cheater]})
    outcome = run(lambda session: scores(session, tmp_path), parties=parties)
    assert "its shares are not those of its digests" in str(outcome.results[cheater])


@pytest.mark.parametrize("parties", SIZES)
def test_who_says_that_it_has_another_set_ends_the_session(parties, tmp_path):
    """Of whatever others it tells so, all of them stop."""
    save(tmp_path, parties)
    others = range(parties - 1)
    told = [who for k in others for who in itertools.combinations(others, k + 1)]
    for receivers in told:

        def lie(message, receivers=receivers):
            if message.sender == parties - 1 and message.public and message.receiver in receivers:
                message.arrays[0][:] ^= TOP

        outcome = run(lambda session: scores(session, tmp_path), lie, parties=parties)
        for error in outcome.results[:-1]:
            if len(receivers) < len(others):
                assert isinstance(error, AbortError), receivers
                continue
            # All are told the same.
            assert isinstance(error, (DataError, LostError))


def test_files_of_another_security_are_refused(tmp_path):
    save(tmp_path / "malicious")
    with mpc.Session(MORE[:3]) as session:
        nn.save_shares(LINEAR.share(session, owner="alice"), tmp_path / "semi-honest")
        with pytest.raises(DataError, match="security must be 'semi-honest', got 'malicious'"):
            nn.load_shares(session, tmp_path / "malicious")
    with (
        together(3) as session,
        pytest.raises(DataError, match="security must be 'malicious', got 'semi-honest'"),
    ):
        nn.load_shares(session, tmp_path / "semi-honest")


def costs(folder, parties):
    """Return what saving and loading take, as a session in one process counts it."""
    with together(parties) as session:
        shared = LINEAR.share(session, owner="alice")
        before = session.cost()
        nn.save_shares(shared, folder)
        saved = session.cost()
        nn.load_shares(session, folder)
        return saved - before, session.cost() - saved


def test_costs_are_what_is_said(tmp_path):
    for spent, text, function in zip(
        costs(tmp_path, 3), ("4 rounds, 112 bytes", "2 rounds, 80 bytes"),
        (nn.save_shares, nn.load_shares), strict=True,
    ):  # fmt: skip
        assert text == f"{spent.rounds} rounds, {spent.bytes_sent_per_party} bytes"
        assert text in function.__doc__


@pytest.mark.parametrize("n", [4, 5])
def test_costs_of_more_parties_are_what_is_said(n, tmp_path):
    saving, loading = costs(tmp_path, n)
    assert (saving.rounds, saving.bytes_sent_per_party) == (4, 72 * n - 104)
    assert (loading.rounds, loading.bytes_sent_per_party) == (2, 40 * (n - 1))
    for text, function in (
        ("of n parties 72 n - 104 bytes", nn.save_shares),
        ("of n parties 40 (n - 1) bytes", nn.load_shares),
        ("of n parties 48 n - 80 bytes", commit),
    ):
        assert text in " ".join(function.__doc__.split())


# Checkpoints.


def weights(model):
    return model.reveal().layers[0].weights


def trained(folder, parties=3):
    assert not run(lambda session: fitted(session, folder), parties=parties).errors
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("parties", SIZES)
def test_a_training_goes_on_from_its_checkpoints(parties, tmp_path):
    assert len(trained(tmp_path, parties)) == parties
    found = run(lambda session: weights(fitted(session, tmp_path, resume=True)), parties=parties)
    whole = run(lambda session: weights(fitted(session, tmp_path / "again")), parties=parties)
    for resumed, other in zip(found.results, whole.results, strict=True):
        np.testing.assert_array_equal(resumed, found.results[0])
        np.testing.assert_allclose(resumed, other, atol=1e-3)


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
def test_an_edited_checkpoint_is_noticed(parties, cheater, tmp_path):
    kept = trained(tmp_path, parties)
    assert len(kept) == parties
    path = tmp_path / f"checkpoint-{MORE[cheater]}.npz"
    arrays, header = read(path)
    arrays["weights"][cheater % 2, 0] ^= TOP
    write(path, arrays, header)
    outcome = run(lambda session: weights(fitted(session, tmp_path, resume=True)), parties=parties)
    assert "not those of its digests" in str(outcome.results[cheater])
    assert all(isinstance(each, LostError) for each in honest(outcome, cheater))


@pytest.mark.parametrize(("parties", "cheater"), CHEATERS)
def test_who_resumes_with_other_shares_is_caught(parties, cheater, tmp_path, monkeypatch):
    trained(tmp_path, parties)
    load = nn.shared.fit.load

    def cheating(folder, trainer, *rest):
        found = load(folder, trainer, *rest)
        if trainer.session.me == MORE[cheater]:
            trainer.weights.shares[0, :1] ^= TOP
        return found

    monkeypatch.setattr(nn.shared.fit, "load", cheating)
    outcome = run(lambda session: weights(fitted(session, tmp_path, resume=True)), parties=parties)
    assert all(isinstance(each, AbortError) for each in honest(outcome, cheater))


@pytest.mark.parametrize(("parties", "receiver"), [(3, 0), (3, 1), (4, 0), (4, 2), (5, 1)])
def test_who_tells_others_of_different_checkpoints_moves_no_file(parties, receiver, tmp_path):
    kept = trained(tmp_path, parties)

    def hide(message):
        last = message.sender == parties - 1
        if last and message.public and message.receiver == receiver:
            message.arrays[0][:] = 0

    outcome = run(
        lambda session: weights(fitted(session, tmp_path, resume=True)), hide, parties=parties
    )
    assert all(isinstance(each, AbortError) for each in outcome.results[:-1])
    assert kept == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("parties", "sender"), CHEATERS)
def test_no_checkpoint_is_written_after_an_edited_message(parties, sender, tmp_path):
    clean = run(lambda session: fitted(session, tmp_path / "clean"), parties=parties)
    digests = [f[2] for f in clean.network.frames if f[0] == sender and f[5] == [(4,)]]
    assert len(digests) == parties - 2
    for count, number in enumerate((0, 3, 9, *digests)):
        folder = tmp_path / str(count)
        change = Tampering(sender, number, flip(np.random.default_rng(number), True))
        outcome = run(
            lambda session, folder=folder: fitted(session, folder), change, parties=parties
        )
        assert change.done == 1
        assert all(isinstance(each, AbortError) for each in honest(outcome, sender))
        names = {path.name for path in folder.glob("*")}
        assert names <= {f"checkpoint-{MORE[sender]}.npz"}


def test_checkpoints_of_another_security_are_refused(tmp_path):
    trained(tmp_path)
    with mpc.Session(MORE[:3]) as session, pytest.raises(DataError, match="must be of security"):
        fitted(session, tmp_path, resume=True)
