"""Stock files of two parties: taken once, by those who made them, whatever happens in between."""

import logging
import os
import shutil
import signal
import socket
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import mpc
from mpc import session_setup
from mpc.core.errors import StockError
from mpc.core.windows import Windows
from mpc.parties import configuration
from mpc.parties.joining import join_parties
from mpc.protocols import convolution
from mpc.session import SessionAt
from mpc.two_party.channel import LockStep
from mpc.two_party.pads import AndPairs, BitPairs, NumberPads
from mpc.two_party.pair import Pair
from mpc.two_party.stock_file import StockFile, StockWriter

NAMES = ("alice", "bob")
PATIENCE = 60
RNG = np.random.default_rng(3)
W = RNG.integers(-50, 50, (6, 5))
X = RNG.integers(-50, 50, (40, 6))
RIGHT = np.maximum(X @ W, 0)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    path = configuration.write_example(
        tmp_path_factory.mktemp("stock"), provider=False,
        ports=[sock.getsockname()[1] for sock in sockets],
    )  # fmt: skip
    yield configuration.load(path), sockets
    for sock in sockets:
        sock.close()


def both(trial, program):
    """Run a program in a session of both parties, each in a thread: what each returns, or its error."""
    read, sockets = trial
    found = {}

    def party(me, sock):
        try:
            links = join_parties(read, me, "stock", sock.dup())
            with SessionAt(session_setup.joined(read, me, links), read) as session:
                found[me] = program(session)
        except Exception as error:
            found[me] = error

    threads = [
        threading.Thread(target=party, args=each, daemon=True)
        for each in zip(NAMES, sockets[:2], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a party hangs"
    return [found[me] for me in NAMES]


def own(session, values, owner):
    return values if session.me == owner else None


def weights(session, w=W):
    return session.share(
        own(session, w, "alice"), owner="alice", shape=w.shape, dtype=int, bound=51
    )


def program(session, w, rows):
    def run(p):
        x = p.share(None, owner="bob", shape=(rows, 6), dtype=int, bound=50)
        return (x @ p.twin(w)).relu().reveal()

    return run


def call(session, w, rows, first=0):
    x = own(session, X[first : first + rows], "bob")
    xs = session.share(x, owner="bob", shape=(rows, 6), dtype=int, bound=50)
    session.prepare(lambda p: (p.twin(xs) @ p.twin(w)).relu().reveal())
    return (xs @ w).relu().reveal()


def make(trial, folder, times=6, rows=5):
    def write(session):
        pieces = []
        session.prepare_ahead(
            program(session, weights(session), rows), times,
            path=folder / session.me, progress=pieces.append,
        )  # fmt: skip
        return pieces

    assert both(trial, write) == [[times]] * 2
    return folder


def use(folder, calls, rows=5, w=W):
    """Return a program that uses stocks: results, serials, and what was drawn beside."""

    def run(session):
        ws = weights(session, w)
        session.use_stock(folder / session.me, program(session, ws, rows))
        out = [call(session, ws, rows, rows * k) for k in range(calls)]
        file = session.pair.prepared.reservoirs[0]
        drawn = sum(extension.made for extension in session.pair.extensions)
        return out, file.serial, file.positions, drawn

    return run


@pytest.fixture
def stock(trial, tmp_path):
    return make(trial, tmp_path)


IMAGES = RNG.integers(-50, 50, (4, 5, 5, 2))
KERNELS = RNG.integers(-50, 50, (3, 3, 2, 4))
SLIDES = Windows((3, 3), (2, 1), ((1, 0), (0, 0)))
MATRICES = RNG.integers(-50, 50, (2, 3, 3))


def test_a_stock_serves_convolutions_and_stacks(trial, tmp_path):
    """In a later session, from the files alone."""

    def parts(session):
        return [weights(session, w) for w in (KERNELS, MATRICES)]

    def answer(p, kernels, matrices, images=None):
        x = p.share(images, owner="bob", shape=IMAGES.shape, dtype=int, bound=50)
        z = convolution.convolve(x, kernels, SLIDES)
        return z.reveal(), (z.sum(axis=3)[:, None] @ matrices).reveal()

    def planned(mine):
        return lambda p: answer(p, *map(p.twin, mine))

    def write(session):
        session.prepare_ahead(planned(parts(session)), path=tmp_path / session.me)

    def read(session):
        mine = parts(session)
        session.use_stock(tmp_path / session.me, planned(mine))
        before = session.cost()
        found = answer(session, *mine, own(session, IMAGES, "bob"))
        drawn = sum(extension.made for extension in session.pair.extensions)
        return found, (session.cost() - before).by_protocol["product"].rounds, drawn

    assert both(trial, write) == [None, None]
    z = np.tensordot(SLIDES.view(IMAGES), KERNELS, axes=3)
    for (first, second), rounds, drawn in both(trial, read):
        np.testing.assert_array_equal(first, z)
        np.testing.assert_array_equal(second, z.sum(axis=3)[:, None] @ MATRICES)
        assert (rounds, drawn) == (2, 0)


def agree(results, calls, rows=5):
    (first, *rest), (second, *others) = results
    assert rest == others
    for k in range(calls):
        expected = RIGHT[rows * k : rows * k + rows]
        np.testing.assert_array_equal(first[k], expected)
        np.testing.assert_array_equal(second[k], expected)
    return rest


def test_a_stock_serves_sessions_one_after_the_other(trial, stock, caplog):
    assert {path.name: path.stat().st_mode & 0o777 for path in stock.iterdir()} == dict.fromkeys(
        NAMES, 384
    )
    serial, positions, drawn = agree(both(trial, use(stock, 2)), 2)
    assert (serial, drawn) == (3, 0) and min(positions) > 0
    later, further, drawn = agree(both(trial, use(stock, 3)), 3)
    assert (later, drawn) == (7, 0)
    assert all(2 * b == 5 * a for a, b in zip(positions, further, strict=True))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    # There is one call more in it; the rest is made within the calls.
    with caplog.at_level(logging.WARNING, "sotto"):
        *_, drawn = agree(both(trial, use(stock, 3)), 3)
    assert drawn > 0
    said = [record.sotto["event"] for record in caplog.records if hasattr(record, "sotto")]
    assert Counter(said)["stock used up"] == 2  # each party once


def refused(trial, program, told):
    """Both are refused, and at one of them the error says why."""
    errors = both(trial, program)
    assert all(isinstance(error, StockError) for error in errors), errors
    assert any(told in str(error) for error in errors), errors
    return [str(error) for error in errors]


def test_files_that_were_tampered_with_are_refused_by_both(trial, stock):
    path = stock / "bob"
    whole = path.read_bytes()

    def spoiled(data, told):
        path.write_bytes(data)
        errors = refused(trial, use(stock, 1), told)
        assert errors[0].startswith("bob cannot use its file") and str(path) in errors[1]

    spoiled(whole[:-1], "cut short")
    spoiled(whole[: len(whole) // 2], "cut short")
    spoiled(whole[:10], "is no stock")
    spoiled(b"", "is no stock")
    middle = len(whole) // 2
    spoiled(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "arrays are not")
    spoiled(whole[:-2] + b"}}", "its index is not")
    spoiled(whole[:4096] + bytes(8192) + whole[12288:], "what was taken")
    path.write_bytes(whole)
    path.chmod(0o640)
    refused(trial, use(stock, 1), "its owner alone")
    path.chmod(0o600)
    agree(both(trial, use(stock, 1)), 1)
    path.unlink()
    refused(trial, use(stock, 1), "cannot be read")


def test_a_copy_is_refused(trial, stock):
    shutil.copy2(stock / "bob", stock / "copy")
    os.replace(stock / "copy", stock / "bob")
    refused(trial, use(stock, 1), "is a copy")


@pytest.mark.parametrize("victim", NAMES)
def test_an_old_file_that_is_put_back_is_refused(trial, stock, victim):
    path = stock / victim
    old = path.read_bytes()
    agree(both(trial, use(stock, 2)), 2)
    path.write_bytes(old)  # into the same file: no copy
    errors = refused(trial, use(stock, 1), "put back")
    assert str(path) in errors[NAMES.index(victim)]
    assert f"{victim}'s stock" in errors[1 - NAMES.index(victim)]


def test_files_of_others_are_refused(trial, stock, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    make(trial, other)
    os.replace(other / "bob", stock / "bob")
    refused(trial, use(stock, 1), "were not made together")
    # Alice's in bob's place.
    os.replace(stock / "alice", stock / "bob")
    refused(trial, use(stock, 1), "by its party")


def test_a_stock_of_other_weights_or_programs_is_refused(trial, stock):
    errors = refused(trial, use(stock, 1, w=W + 1), "of other weights")
    assert errors[1].startswith("alice cannot use")
    refused(trial, use(stock, 1, w=W[:, :4]), "other shapes")
    agree(both(trial, use(stock, 1)), 1)


def test_nobody_keeps_a_file_if_one_cannot_be_written(trial, tmp_path):
    (tmp_path / "bob").write_text("mine")

    def write(session):
        session.prepare_ahead(program(session, weights(session), 2), path=tmp_path / session.me)

    refused(trial, write, "exists already")
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]
    assert (tmp_path / "bob").read_text() == "mine"


def test_what_was_taken_for_a_call_that_fails_is_not_taken_again(trial, stock, monkeypatch):
    """One party is lost between the record and the use, before the other has recorded anything."""
    real, handed = StockFile._parts, []

    def parts(self, kind, start, stop):
        if self.path.name == "alice" and fails:
            raise RuntimeError
        handed.append((self.path.name, kind, start, stop))
        return real(self, kind, start, stop)

    monkeypatch.setattr(StockFile, "_parts", parts)
    fails = False
    agree(both(trial, use(stock, 1)), 1)
    fails = True
    lost = both(trial, use(stock, 1))
    assert all(isinstance(error, Exception) for error in lost)
    fails = False
    agree(both(trial, use(stock, 2)), 2)
    taken = Counter((name, kind, word) for name, kind, a, b in handed for word in range(a, b))
    assert taken and max(taken.values()) == 1


@pytest.mark.parametrize("late", NAMES)
def test_both_go_on_behind_what_either_has_taken(trial, stock, monkeypatch, late):
    """One party is lost before its record, when the other has made its own."""
    real, lost = StockFile.withdraw, True

    def withdraw(self, wanted):
        if self.path.name == late and lost:
            raise RuntimeError
        return real(self, wanted)

    monkeypatch.setattr(StockFile, "withdraw", withdraw)
    assert all(isinstance(error, Exception) for error in both(trial, use(stock, 1)))
    lost = False
    serial, positions, drawn = agree(both(trial, use(stock, 1)), 1)
    assert (serial, drawn) == (4, 0)
    # Twice as much is gone as one call takes.
    _, further, _ = agree(both(trial, use(stock, 1)), 1)
    assert all(2 * b == 3 * a for a, b in zip(positions, further, strict=True))


def test_a_stock_has_one_session(trial, stock):
    def twice(session):
        ws = weights(session)
        for _ in range(2):
            session.use_stock(stock / session.me, program(session, ws, 5))

    refused(trial, twice, "is open in another process or session")
    agree(both(trial, use(stock, 1)), 1)


def test_a_path_is_for_parties_apart(tmp_path):
    with mpc.Session(provider=None) as s:
        with pytest.raises(mpc.ArgumentError, match="one party"):
            s.prepare_ahead(lambda p: None, path=tmp_path / "x")
        with pytest.raises(mpc.ArgumentError, match="one party"):
            s.use_stock(tmp_path / "x", lambda p: None)
    with mpc.Session() as s, pytest.raises(mpc.SessionError, match="provider deals"):
        s.use_stock(tmp_path / "x", lambda p: None)
    assert not list(tmp_path.iterdir())


# Of a file alone.

ABOUT = {"party": "alice"}
WANTED = [AndPairs(6), BitPairs(6, 16), NumberPads(6, 0), NumberPads(3, 1)]


@pytest.fixture
def file(tmp_path):
    writer = StockWriter(tmp_path / "stock", bytes(16), ABOUT, [], [])
    for _ in range(2):
        for made in Pair(LockStep()).make(WANTED):
            writer.add(*made)
    writer.finish()
    return tmp_path / "stock"


def opened(path):
    return StockFile(path, [], [], ABOUT)


def test_parts_of_a_file_are_what_was_written(file):
    whole = opened(file)
    ((_, made),) = whole.withdraw([AndPairs(12)])
    # Over the border of what was made at once.
    parts = [whole.withdraw([BitPairs(n, 16)])[0][1] for n in (1, 4, 5, 2)]
    left = [whole.holds(replace(kind, words=0)) for kind in WANTED]
    assert left == [0, 0, 12, 6]
    assert [part.words for part in parts] == [1, 4, 5, 2]
    joined = parts[0].joined(parts[1:])
    assert joined.product.shape == (2, 64 * 12) and joined.bit.shape == (2, 12)
    ands = made.p[0] ^ made.p[1], made.g[0] ^ made.g[1], made.pg[0] ^ made.pg[1]
    np.testing.assert_array_equal(ands[0] & ands[1], ands[2])
    places = np.unpackbits(joined.bit.view(np.uint8), axis=1, bitorder="little").astype(np.uint64)
    total = joined.product[0] + joined.product[1]
    np.testing.assert_array_equal(places[0] & places[1], total & np.uint64(0xFFFF))
    with pytest.raises(StockError):
        whole.withdraw([AndPairs(1)])
    whole.close()


def test_a_file_is_open_once(file):
    first = opened(file)
    with pytest.raises(StockError, match="open in another process"):
        opened(file)
    first.close()
    opened(file).close()


def test_killed_between_the_record_and_the_use(file):
    before = opened(file)
    before.withdraw([AndPairs(2)])
    before.close()
    child = os.fork()
    if not child:
        inside = opened(file)
        inside._parts = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        inside.withdraw([AndPairs(3)])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    after = opened(file)
    assert after.serial == 2 and after.holds(AndPairs(0)) == 12 - 5
    after.close()


def test_the_record_is_on_the_disk_before_anything_is_read(file, monkeypatch):
    steps = []
    sync, read = os.fsync, StockFile._parts
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), sync(fd)))
    stock = opened(file)

    def parts(*arguments):
        steps.append("read")
        return read(stock, *arguments)

    stock._parts = parts
    stock.withdraw([AndPairs(1), BitPairs(1, 16)])
    assert steps == ["fsync", "read", "read"]
    stock.close()


def test_half_a_record_is_none(file):
    stock = opened(file)
    for _ in range(3):
        stock.withdraw([AndPairs(1)])
    stock.close()
    with file.open("r+b") as f:
        f.seek(4096 * (1 + 3 % 2) + 12)
        f.write(b"\xff")
    stock = opened(file)
    assert stock.serial == 2 and stock.holds(AndPairs(0)) == 12 - 2
    stock.close()


def test_what_is_not_finished_leaves_no_file(tmp_path):
    writer = StockWriter(tmp_path / "stock", bytes(16), ABOUT, [], [])
    writer.close()
    assert not list(tmp_path.iterdir())
