"""What two parties alone make ahead: in few rounds, taken once, and right."""

import gc
import logging
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import mpc
import nn
from mpc.core.errors import ArgumentError, DtypeError, PeerClosedError, SessionError
from mpc.core.known import OwnerInput
from mpc.two_party.channel import LockStep
from mpc.two_party.mask_products import Factor, MaskProducts, multiply_masked
from mpc.two_party.pads import AndPairs, BitPairs, NumberPads
from mpc.two_party.pair import Pair


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(5)
    X = rng.random((200, 20))
    X[-2], X[-1] = 0, 1
    return nn.MLP((20, 16, 8, 10), random_state=0).fit(X, rng.integers(10, size=200), epochs=1), X


def predict(secret, n):
    return lambda p: secret.twin(p).predict(p.share(None, owner="bob", shape=(n, 20), bound=1.0))


def run(s, secret, X):
    before, made = s.cost(), [extension.made for extension in s.pair.extensions]
    found = secret.predict(s.share(X, owner="bob", bound=1.0))
    drawn = [e.made - m for e, m in zip(s.pair.extensions, made, strict=True)]
    return found, s.cost() - before, drawn


def test_a_call_makes_its_transfers_in_few_rounds(model):
    plain, X = model
    with mpc.Session(provider=None) as s:
        secret = plain.share(s, owner="alice")
        run(s, secret, X[:100])  # keys
        s.prepare_ahead(predict(secret, 100))
        _, online, drawn = run(s, secret, X[:100])
        assert drawn == [0, 0]
        found, spent, drawn = run(s, secret, X[:100])
        np.testing.assert_array_equal(found, plain.predict(X[:100]))
        assert min(drawn) > 0
        # One message with transfers each way for every kind that sends something else, and a round for
        # that; products take a round more each.
        kinds = spent.by_protocol["prepared"].rounds
        assert kinds <= 8
        assert spent.rounds == online.rounds + kinds + 3
        # As a plan says.
        plan = s.plan(predict(secret, 100))
        _, spent, _ = run(s, secret, X[:100])
        assert plan.cost.total == spent.total


def test_more_transfers_than_there_is_memory_for_are_made_as_they_are_needed(model):
    plain, X = model
    largest, limit = [], 1 << 18
    for memory in (limit, 1 << 28):
        with mpc.Session(provider=None, memory_limit=memory) as s:
            secret, asked, prepare = plain.share(s, owner="alice"), [], s.pair.prepare

            def counted(wanted, asked=asked, prepare=prepare):
                asked.append(sum(sum(c.cost.transfers) for c in wanted))
                prepare(wanted)

            s.pair.prepare = counted
            np.testing.assert_array_equal(run(s, secret, X[:100])[0], plain.predict(X[:100]))
            largest.append(max(asked))
    assert 0 < 2 * largest[0] <= limit < 2 * largest[1]


@pytest.mark.parametrize("rows", [1, 40])
def test_what_is_made_ahead_is_taken(model, rows, caplog):
    plain, X = model
    with mpc.Session(provider=None) as s:
        secret = plain.share(s, owner="alice")
        s.prepare_ahead(predict(secret, rows), times=2)
        assert s.plan(predict(secret, rows)).products == 0
        for start in (0, rows):
            found, spent, drawn = run(s, secret, X[start : start + rows])
            np.testing.assert_array_equal(found, plain.predict(X[start : start + rows]))
            assert drawn == [0, 0]
            assert "prepared" not in spent.by_protocol
            assert spent.by_protocol["product"].rounds == 3
            # Of a product only the rows are sent, and those by their party alone.
            assert spent.by_protocol["product"].sent == (0, 8 * rows * (20 + 16 + 8))
        assert not caplog.records
        with caplog.at_level(logging.WARNING, "sotto"):
            for _ in range(2):
                found, _, drawn = run(s, secret, X[:rows])
                np.testing.assert_array_equal(found, plain.predict(X[:rows]))
        assert sum(drawn) > 0
        assert [record.sotto["event"] for record in caplog.records] == ["stock used up"]


def test_masks_serve_their_input_alone(model):
    plain, X = model
    with mpc.Session(provider=None) as s:
        first, second = (plain.share(s, owner="alice") for _ in range(2))
        s.prepare_ahead(predict(first, 20))
        _, spent, _ = run(s, second, X[:20])
        assert spent.by_protocol["product"].rounds > 3
        _, spent, _ = run(s, first, X[:20])
        assert spent.by_protocol["product"].rounds == 3


@pytest.mark.parametrize("rows", [1, 15, 16, 90])
@pytest.mark.parametrize("shared", [False, True])
def test_products_by_masks_are_exact(rows, shared):
    rng = np.random.default_rng(rows)
    x = rng.integers(-(2**20), 2**20, (rows, 5))
    w = rng.integers(-(2**20), 2**20, (5, 7))
    x[0, :], w[:, 0] = 2**20, -(2**20)
    with mpc.Session(provider=None) as s:
        ws = s.share(w, owner="alice")

        def program(p):
            xs = p.share(x, owner="bob")
            return ((xs + p.share(x, owner="alice") if shared else xs) @ p.twin(ws)).reveal()

        s.prepare_ahead(program, times=3)
        for _ in range(3):
            assert s.plan(program).products == 0
            xs = s.share(x, owner="bob")
            xs = xs + s.share(x, owner="alice") if shared else xs
            np.testing.assert_array_equal((xs @ ws).reveal(), (1 + shared) * (x @ w))
        assert s.plan(program).products == 1


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("shared", [False, True])
def test_products_with_weights_that_nobody_knows(rows, shared):
    rng = np.random.default_rng(rows)
    x = rng.integers(-(2**20), 2**20, (rows, 5))
    w = rng.integers(-(2**20), 2**20, (5, 5))
    with mpc.Session(provider=None) as s:
        ws = s.share(w, owner="alice") + s.share(0 * w, owner="bob")

        def rows_of(p):
            xs = p.share(x, owner="bob")
            return xs + p.share(x, owner="alice") if shared else xs

        s.prepare_ahead(lambda p: (rows_of(p) @ p.twin(ws)).reveal(), times=2)
        for _ in range(2):
            before = s.cost()
            product = rows_of(s) @ ws
            spent = s.cost() - before
            # Each party's rows for the other's share of the weights, at the same time.
            assert spent.rounds == 1
            assert spent.total.sent == (shared * 40 * rows, 40 * rows)
            np.testing.assert_array_equal(product.reveal(), (1 + shared) * (x @ w))
        # Not for what has other elements at the same places, nor for another array.
        s.prepare_ahead(lambda p: (rows_of(p) @ p.twin(ws)).reveal(), times=3)
        other = s.share(w, owner="alice") + s.share(0 * w, owner="bob")
        for right, plain in ((ws.T, w.T), (ws[::-1], w[::-1]), (other, w), (ws, w)):
            np.testing.assert_array_equal((rows_of(s) @ right).reveal(), (1 + shared) * (x @ plain))


def test_what_cannot_be_made_ahead_is_refused():
    with mpc.Session() as s, pytest.raises(SessionError, match="provider deals"):
        s.prepare_ahead(lambda p: None)
    with mpc.Session(provider=None) as s:
        for times in (0, -1, 1.0, True):
            with pytest.raises(ArgumentError, match="times"):
                s.prepare_ahead(lambda p: None, times=times)
        with pytest.raises(DtypeError):
            s.prepare_ahead(None)
        assert s.cost().rounds == 0


# Of a pair.


class Recording(LockStep):
    """Keeps what is sent; loses the connection at a message that is named."""

    def __init__(self):
        super().__init__()
        self.heard, self.fails_at = [], None

    def swap(self, messages, counts, *, continued=False):
        if self.fails_at is not None:
            self.fails_at -= 1
            if self.fails_at < 0:
                raise PeerClosedError("bob closed the connection")
        self.heard.append([m.copy() for m in messages])
        return super().swap(messages, counts, continued=continued)


def factor(pair, w, bound=2**63):
    """Enter alice's input w."""
    here = 0 in pair.parties
    encoded = w[None] if here else np.empty((0, *w.shape), np.uint64)
    base = OwnerInput(None, 0, encoded, 1)
    pair.constants._inputs[1] = base
    return Factor(1, (), 0, 1, *w.shape, bound), base


def words(*shape):
    return np.frombuffer(np.random.default_rng(7).bytes(8 * np.prod(shape)), np.uint64).reshape(
        shape
    )


def test_masks_of_parties_apart(ends, run_both):
    x, w = words(40, 6), words(6, 5)

    def program(end):
        pair = Pair(end)
        f, _base = factor(pair, w)
        masks = MaskProducts(0, 1, f)
        pair.prepare([replace(masks, words=n) for n in (30, 3, 7)])
        out, sent = [], []
        for first, last in ((0, 17), (17, 40)):
            some = replace(masks, words=last - first)
            made, before = pair.take_prepared([some]), end.sent
            out.append(multiply_masked(pair, [some], made, [x[first:last]], [w[None]]))
            sent.append(end.sent - before)
        assert pair.take_prepared([replace(masks, words=1)]) is None
        return np.concatenate(out, axis=1), sent

    (first, nothing), (second, sent) = run_both([lambda end=end: program(end) for end in ends])
    assert nothing == [0, 0]
    assert sent == [8 * 17 * 6, 8 * 23 * 6]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(first[0] + second[0], x @ w)


def test_rows_under_masks_are_uniform_and_never_alike():
    channel = Recording()
    pair = Pair(channel)
    w = words(8, 3)
    f, _base = factor(pair, w)
    masks = MaskProducts(40, 1, f)
    x, seen = np.zeros((40, 8), np.uint64), []
    pair.prepare([masks] * 32)
    for _ in range(32):
        multiply_masked(pair, [masks], pair.take_prepared([masks]), [x, x], [w[None], w[None]])
        seen.append(channel.heard[-1][1].copy())
        assert channel.heard[-1][0].size == 0
    seen = np.concatenate(seen)
    assert len(np.unique(seen)) == seen.size
    counts = np.bincount(seen.view(np.uint8), minlength=256)
    expected = seen.nbytes / 256
    # 255 degrees of freedom: beyond 400 once in 10^7 runs.
    assert ((counts - expected) ** 2 / expected).sum() < 400


def everything(made):
    """The secret words of what was handed out, as a set."""
    arrays = [array for _, array in made.arrays() if array.dtype == np.uint64]
    return {int(v) for array in arrays for v in array.ravel() if int(v) > 2**32}


@pytest.mark.parametrize("stock", [0, 6])
def test_what_a_failed_call_was_handed_is_never_handed_out_again(stock):
    channel = Recording()
    pair = Pair(channel)
    kinds = [NumberPads(2, 0), NumberPads(2, 1), AndPairs(2), BitPairs(2, 64)]
    if stock:
        pair.prepare([replace(kind, words=stock) for kind in kinds])
    seen = set()
    for attempt in range(3):
        for kind in kinds:
            # In the middle of what is made, if it is.
            channel.fails_at = 1 if attempt == 1 and not stock else None
            try:
                made = pair.take(kind)
            except PeerClosedError:
                channel.fails_at = None
                pair.resume()
                continue
            channel.fails_at = None
            mine = everything(made)
            assert mine and not mine & seen
            seen |= mine


def test_after_a_failure_nothing_is_left_of_what_was_made_ahead():
    channel = Recording()
    pair = Pair(channel)
    pair.prepare([NumberPads(4, 0)])
    seen = everything(pair.take(NumberPads(2, 0)))
    pair.resume()
    assert pair.prepared.lacking([NumberPads(2, 0)]) == [NumberPads(2, 0)]
    assert not everything(pair.take(NumberPads(4, 0))) & seen


def test_a_failure_in_the_middle_of_preparing_leaves_nothing_half_made():
    channel = Recording()
    pair = Pair(channel)
    channel.fails_at = 2
    wanted = [NumberPads(64, 0), BitPairs(64, 16), NumberPads(64, 1)]
    with pytest.raises(PeerClosedError):
        pair.prepare(wanted)
    channel.fails_at = None
    pair.resume()
    assert pair.prepared.lacking(wanted) == wanted
    pair.prepare(wanted)
    rounds = channel.rounds
    for kind in wanted:
        pair.take(kind)
    assert channel.rounds == rounds


def test_arrays_that_are_gone_are_forgotten():
    """A training has new weights in every step."""
    with mpc.Session(provider=None) as s:
        for _ in range(3):
            w = s.share([1.0], owner="alice") + s.share([1.0], owner="bob")
            s.plan(lambda p, w=w: p.twin(w) + 1)
            numbers = s.pair.constants.number(w.shares)
            assert s.pair.constants.array(numbers) is not None
        assert numbers == -3
        del w
        gc.collect()
        assert s.pair.constants._arrays == s.pair.constants._numbers == {}


@pytest.mark.parametrize("seed", range(4))
def test_neither_party_waits_for_the_other_in_between(seed):
    """Whatever the order in which things are asked for, turns are few, and pieces of one no rounds."""
    kinds = [NumberPads(9000, 1), AndPairs(9000), BitPairs(9000, 16), NumberPads(9000, 0)]
    channel = Recording()
    pair = Pair(channel)
    start, rounds = len(channel.heard), channel.rounds
    pair.prepare([kinds[k] for k in np.random.default_rng(seed).permutation(4)])
    senders = [0 if first.size else 1 for first, _ in channel.heard[start:]]
    assert len(senders) > 4
    assert sum(a != b for a, b in pairwise(senders)) == 3
    assert channel.rounds - rounds == 4


def test_what_is_lacking_counts_what_was_asked_for_before():
    pair = Pair(LockStep())
    pair.prepare([NumberPads(4, 0)])
    wanted = [NumberPads(3, 0), NumberPads(3, 0), NumberPads(1, 1)]
    assert pair.prepared.lacking(wanted) == [NumberPads(2, 0), NumberPads(1, 1)]
