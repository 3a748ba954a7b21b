"""Parties share no memory: what one computes follows from its own keys, data and what is opened.

Every protocol runs with all parties in one process, and again for each party by itself, with its
own streams and nobody else's, while what was opened the first time is delivered to it.
"""

import numpy as np
import pytest

import mpc
from mpc.core.cost import Ledger
from mpc.core.interfaces import Transport
from mpc.core.keys import fresh_streams
from mpc.core.known import SharedBit
from mpc.core.setup import Setup
from mpc.protocols.masking import mask_ahead
from mpc.protocols.relu import relu_in_four_rounds, relu_in_two_rounds, relu_with_derivative
from mpc.protocols.sigmoid import sigmoid
from mpc.provider.dealer import Provider
from mpc.provider.sources import FromKeys, InProcess
from mpc.session import SessionAt
from mpc.session_setup import policy
from mpc.transport.local import LocalTransport
from ring import FixedPoint

NAMES = ("alice", "bob", "carol", "dave", "erin")
A = np.round(np.linspace(-20, 20, 66) * 2**16) / 2**16
B = A[::-1] * 0.5 + 1


class Replay(Transport):
    """Deliver what was opened in another run, and keep what is sent."""

    def __init__(self, opened, me=None):
        self.opened, self.sent, self.me = iter(opened), [], me

    def open(self, messages):
        self.sent.append([(words.copy(), opening) for words, opening in messages])
        return next(self.opened)

    def open_to(self, party, shares, opening):
        (words,) = self.open([(shares, opening)])
        return words if self.me in (None, party) else words[:0]

    def close(self, problem):
        pass

    def note(self, *step):
        pass

    @property
    def bytes_on_the_wire(self):
        return 0, 0


def start(parties, here, streams, keys, transport=None):
    """Start a session in which only some of the parties live."""
    held = {party: streams[party] for party in here}
    if keys is None:
        source = FromKeys(held)
    else:
        source = InProcess(held, len(parties), Provider(keys))
    return SessionAt(
        Setup(
            parties=parties, here=here, format=FixedPoint(), memory_limit=1 << 28, streams=held,
            source=source, transport=transport or LocalTransport(), ledger=Ledger(len(parties)),
            # Alone, a party has no values to check, and garbage is out of range.
            range_policy=policy("warn", here),
        )
    )  # fmt: skip


def give(s, array, owner):
    here = s.parties.index(owner) in s.here
    return s.share(array if here else None, owner, shape=array.shape, dtype=array.dtype)


def two(s):
    return give(s, A, "alice"), give(s, B, s.parties[-1])


def linear(s):
    x, y = two(s)
    return x + y, 3 - x * 2, x.sum(), x[::2], x.reshape(6, 11).T, np.stack([x, y]), x + 0.5


def products_for_one_to_see(s):
    x, y = two(s)
    mask_ahead(x, y)
    z, t = x + y, y - x
    u, v = z.reshape(11, 6), y.reshape(6, 11)
    # Some after others in one flight: those who only send go on.
    t.reveal(to="alice")
    return (
        x * z,
        z * x,
        z * y,
        u @ v,
        (u @ v + 1).relu() @ x[:11].reshape(11, 1),
        x * (y * t),
        t * x,
    )


def products(s):
    x, y = two(s)
    z = x + y
    u, v = x.reshape(6, 11), z.reshape(11, 6)
    return x * y, x * x, z * z, z * x, u @ v, v.T @ u.T, u[1:] @ v[:, 2], (x * y) * z


def truncation(s):
    x, y = two(s)
    return (x * y).truncate(), x / 3, (x + y).mean(), y * 0.5 / -7


def relu(s):
    x, y = two(s)
    z, bit = relu_with_derivative(x * y)
    held = (bit.planes,) if isinstance(bit, SharedBit) else (bit.beta, bit.delta)
    if s.pair is None:
        held += tuple(relu_in_two_rounds(v, truncate=False) for v in (x * y, x - y))
        held += (relu_in_two_rounds(x * y), relu_in_four_rounds(x * y)[0])
    return x.relu(), (x - y).relu(), z, *held


def smooth(s):
    x, y = two(s)
    return np.tanh(x), np.tanh(x * y), sigmoid(x * y)


def functions(s):
    x, y = two(s)
    z = abs(y) + 1
    found = np.exp(y / 8), np.log(z), np.sqrt(z * z), 1 / z, x / z, z**-0.5
    return (
        *found,
        x.activation("silu"),
        (x * y).activation("elu", 0.5),
        x.erf(),
        np.rint(x),
        y.sign(),
    )


def comparisons(s):
    x, y = two(s)
    return x < y, x >= 0, x == y, y != 0.5, ~(x > y), np.maximum(x, y), abs(y), np.clip(x, -1, y)


def choices(s):
    x, y = two(s)
    bit = x < y
    return bit * x, bit * (x * y), np.where(bit, x, y), bit & (y > 0), bit.sum()


def largest(s):
    x, y = two(s)
    rows = (x * y).reshape(6, 11)
    many = np.concatenate([x, y]).reshape(4, 33)
    return rows.argmax(axis=1, one_hot=True), rows.max(axis=0), many.argmax(axis=1), many.min()


def revealing(s):
    x, y = two(s)
    x.reveal(to="bob")
    (x * y).reveal()
    return x * y, x, y


PROGRAMS = [
    linear, products, products_for_one_to_see, truncation, relu, smooth, functions, comparisons,
    choices, largest, revealing,
]  # fmt: skip
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)


def rows_of(results):
    """Return each result's words with the party axis first."""
    return [x.shares if isinstance(x, mpc.SharedArray) else x for x in results]


@pytest.fixture(params=[2, 3, 5], ids=["two", "three", "five"])
def keyed(request):
    """Parties, their streams, and the provider's keys."""
    return NAMES[: request.param], *fresh_streams(request.param)


@every_program
def test_a_party_by_itself_computes_its_row(keyed, tap, program):
    parties, streams, keys = keyed
    n = len(parties)
    together = start(parties, tuple(range(n)), streams, keys)
    with tap(together) as heard:
        want = rows_of(program(together))
    for j in range(n):
        own = [streams[j] if i == j else None for i in range(n)]
        # The provider sends to the last party alone.
        alone = start(parties, (j,), own, keys if j == n - 1 else None, Replay(heard.opened, j))
        got = rows_of(program(alone))
        for mine, all_rows in zip(got, want, strict=True):
            row = all_rows if len(all_rows) == 1 else all_rows[j : j + 1]
            np.testing.assert_array_equal(mine, row)
        assert len(alone.transport.sent) == len(heard.sent)
        for mine, everybody in zip(alone.transport.sent, heard.sent, strict=True):
            for (words, opening), (all_words, other) in zip(mine, everybody, strict=True):
                assert opening == other
                if isinstance(opening, str):
                    np.testing.assert_array_equal(words, all_words[j : j + 1])
                else:
                    np.testing.assert_array_equal(
                        words, all_words if j == opening else all_words[:0]
                    )
        assert alone.cost() == together.cost()


class Garbage:
    """A stream of other words."""

    def __init__(self, stream):
        self.stream = stream

    def fill(self, out, id, start=0):
        self.stream.fill(out, id, start)
        out += np.uint64(0x9E3779B97F4A7C15)

    def at(self, id):
        return Garbage(self.stream.at(id))

    def place(self, name):
        return self.stream.place(name)


@every_program
def test_one_partys_garbage_stays_in_its_row(keyed, tap, program):
    parties, streams, keys = keyed
    n = len(parties)
    everybody = tuple(range(n))
    clean = start(parties, everybody, streams, keys)
    with tap(clean) as heard:
        want = rows_of(program(clean))
    for bad in {0, 1, n - 1}:
        poisoned = list(streams)
        poisoned[bad] = type(streams[bad])(
            Garbage(streams[bad].masks),
            Garbage(streams[bad].corrections),
            {j: Garbage(stream) for j, stream in streams[bad].pairs.items()},
        )
        s = start(parties, everybody, poisoned, keys, Replay(heard.opened))
        got = rows_of(program(s))
        changed = False
        for mine, all_rows in zip(got, want, strict=True):
            if len(all_rows) == 1:
                continue
            others = [j for j in everybody if j != bad]
            np.testing.assert_array_equal(mine[others], all_rows[others])
            changed |= bool((mine[bad] != all_rows[bad]).any())
        # What the last party has of a truncation comes from the provider: there it is the message.
        for mine, all_rows in zip(s.transport.sent, heard.sent, strict=True):
            for (words, opening), (all_words, _) in zip(mine, all_rows, strict=True):
                if isinstance(opening, str):
                    changed |= bool((words[bad] != all_words[bad]).any())
        assert changed


def test_linear_operations_do_not_mix_rows(session):
    a = np.arange(12.0).reshape(3, 4) - 5
    operations = [
        lambda x: x + x,
        lambda x: x - 1.5,
        lambda x: 2 - x,
        lambda x: -x,
        lambda x: x * 3,
        lambda x: x * a,
        lambda x: x @ a.T,
        lambda x: a.T @ x,
        lambda x: x.sum(),
        lambda x: x.sum(axis=0),
        lambda x: x.T,
        lambda x: x[1],
        lambda x: x[[0, 2], :, None],
        lambda x: x[[0, 2], [1, 3]],
        lambda x: x.reshape(2, 6),
        lambda x: np.concatenate([x, x], axis=1),
        lambda x: np.stack([x, x], axis=-1),
        lambda x: np.expand_dims(x, 0),
        lambda x: x.with_integer_bound(7),
    ]
    x = session.share(a, owner="alice")
    for operation in operations:
        want = operation(x).shares.copy()
        for bad in range(session.size):
            shares = x.shares.copy()
            shares[bad] = np.arange(12).reshape(3, 4) ** 7
            got = operation(x.derive(shares, frac_bits=16, bound=x.bound)).shares
            others = [j for j in range(session.size) if j != bad]
            np.testing.assert_array_equal(got[others], want[others])
            assert not np.array_equal(got[bad], want[bad])


def test_only_opening_brings_shares_together(fresh_session, tap):
    s = fresh_session
    x = s.share(A, owner="alice")
    with tap(s) as heard:
        linear(s)
        assert heard.sent == []
        assert x.shares.shape == (s.size, 66)
    # Without delivery, nothing with a round can be computed.

    class CutError(Exception):
        pass

    def cut(messages):
        raise CutError

    s.transport.open = cut
    for program in (products, truncation, relu, smooth, comparisons, choices, largest, revealing):
        with pytest.raises(CutError):
            program(s)
    linear(s)


def test_nobody_is_here_in_a_plan(session):
    for program in PROGRAMS:
        seen = []

        def planned(p, program=program, seen=seen):
            assert p.here == ()
            assert p.streams == {}
            seen.extend(rows_of(program(p)))

        session.plan(planned)
        assert seen
        assert all(len(words) == 0 for words in seen)
