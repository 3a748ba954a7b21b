"""Two parties alone, of which one is lost, stalls or sends something else, at any of its rounds.

The other gets an error that names it, and what they make afterwards is new.
"""

import socket
import threading

import numpy as np
import pytest

import mpc
from mpc import session_setup
from mpc.core.frames import Kind
from mpc.launch import start
from mpc.parties import configuration
from mpc.parties.configuration import Timeouts
from mpc.parties.joining import join_parties
from mpc.session import SessionAt
from tests.helpers import programs

X = np.linspace(-3, 4, 100)
W = np.linspace(-1, 1, 200).reshape(40, 5)
Y = np.linspace(2, -1, 800).reshape(20, 40)
RIGHT = np.concatenate([X * X, (2 * Y @ (2 * W)).ravel()])
# Long enough to load kernels on a busy machine; a stall is longer.
ANSWER = 5.0
PATIENCE = 60
NAMES = ("alice", "bob")
# Rounds before the program's first: of the session's start.
BEGINS = 4
# Stand for the first rounds of the matrix product: ciphertexts, and answers.
RLWE = range(1000, 1004)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    path = configuration.write_example(
        tmp_path_factory.mktemp("faults"), provider=False,
        ports=[sock.getsockname()[1] for sock in sockets],
        timeouts=Timeouts(connect=PATIENCE, answer=ANSWER),
    )  # fmt: skip
    yield configuration.load(path), sockets
    for sock in sockets:
        sock.close()


class Party:
    """One party in a thread: what it has sent, and how it ended."""

    def __init__(self, me, read, sock, spoil=None, at=None):
        self.me, self._read, self._sock = me, read, sock
        self.after = None
        self._spoil, self._at = spoil, at
        self.sent, self.rounds = [], 0
        # By round, the first of its messages.
        self.own = {}
        self.error = self.result = self.id = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            links = join_parties(self._read, self.me, "faults", self._sock.dup())
            setup = session_setup.joined(self._read, self.me, links)
            self._watch(setup.transport)
            with SessionAt(setup, self._read) as session:
                self.id = session.session_id
                try:
                    self.result = self._compute(session)
                except mpc.PeerError:
                    # A program that goes on: its session does not.
                    self.after = self._go_on(session)
                    raise
        except Exception as error:
            self.error = error

    def _compute(self, session):
        """A product and a ReLU by transfers, a matrix product of shares by ring-LWE."""

        def of(owner, value):
            return session.share(
                value if owner == self.me else None, owner, shape=value.shape, bound=8
            )

        positive = (of("alice", X) * of("bob", X)).relu().reveal()
        self.first = self.rounds
        y, w = of("alice", Y) + of("bob", Y), of("alice", W) + of("bob", W)
        product = (y @ w).reveal()
        return np.concatenate([positive, product.ravel()])

    def _go_on(self, session):
        try:
            return session.share(X, owner=self.me)
        except mpc.SessionError as error:
            return str(error)

    def _watch(self, transport):
        real = transport.open

        def open_(messages):
            number, self.rounds = self.rounds, self.rounds + 1
            own = [words for words, opening in messages if len(words)]
            if number == self._at:
                messages = self._spoil(transport, messages)
            self.sent += [words[0].copy() for words in own]
            if own:
                self.own[number] = own[0][0].copy()
            return real(messages)

        transport.open = open_

    def place(self, at):
        """Return which round a number of a case stands for."""
        return self.first + at - RLWE[0] if at in RLWE else at % self.rounds

    def joined(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), f"{self.me} hangs"
        return self


def both(trial, spoil=None, at=None):
    """Run both parties; bob spoils his message in one of his rounds."""
    read, sockets = trial
    parties = Party("alice", read, sockets[0]), Party("bob", read, sockets[1], spoil, at)
    return [party.joined() for party in parties]


def close(transport, messages):
    for connection in transport.peers.values():
        connection.close()
    return messages


def half(transport, messages):
    """Close in the middle of a frame."""
    (connection,) = transport.peers.values()
    frame = np.zeros(1 << 16, np.uint64)
    connection.post(Kind.OPEN, [frame], transport._steps)
    connection.push()
    connection.close()
    return messages


def short(transport, messages):
    """One word less than is agreed."""
    return [(words[..., :-1] if len(words) else words, o) for words, o in messages]


def noise(transport, messages):
    """As many words, of any values."""
    random = np.random.default_rng(3)
    return [
        (random.integers(0, 1 << 64, words.shape, np.uint64), opening)
        for words, opening in messages
    ]


def of_another_kind(transport, messages):
    (connection,) = transport.peers.values()
    connection.post(Kind.REVEAL, [words[0] for words, _ in messages if len(words)])
    return messages


def stall(transport, messages):
    threading.Event().wait(2 * ANSWER)
    return messages


@pytest.fixture(scope="module")
def well(trial):
    """Both parties, when all is well."""
    alice, bob = both(trial)
    assert alice.error is None and bob.error is None
    np.testing.assert_allclose(alice.result, RIGHT, atol=1e-3)
    return alice, bob


def test_rounds_of_the_start(trial, well):
    """What the cases below call the start, the middle of an extension, and an answer."""
    alice, bob = well
    assert alice.rounds == bob.rounds > alice.first + len(RLWE) and alice.first > 2 * BEGINS
    # Ciphertexts are the largest messages by far.
    sizes = [words.size for words in bob.sent]
    assert sorted(sizes)[-2] > 10_000 > max(sizes[:10])
    assert alice.id == bob.id and len(alice.id) == 16


def large(party):
    """Words that nobody sends twice by chance: all but counts and positions."""
    return {word for words in party.sent for word in words.ravel().tolist() if word >> 32}


@pytest.mark.parametrize(
    ("spoil", "at"),
    [(close, BEGINS + 1), (close, -2), (half, 2), (half, BEGINS + 1), (short, 0), (short, -2),
     (half, RLWE[1]), (short, RLWE[3]),
     (of_another_kind, BEGINS + 1), (stall, 2)],
)  # fmt: skip
def test_the_other_party_is_told_who_it_was_and_a_retry_is_new(trial, well, spoil, at):
    at = well[0].place(at)
    alice, bob = both(trial, spoil, at)
    assert isinstance(alice.error, mpc.PeerError), alice.error
    assert "bob" in str(alice.error) and alice.result is None
    assert bob.error is not None and bob.result is None
    if spoil is not close:
        return
    # What was sent is not sent again: keys, choices, masks and messages are new.
    again = both(trial)
    for first, second in zip((alice, bob), again, strict=True):
        assert second.error is None
        np.testing.assert_allclose(second.result, RIGHT, atol=1e-3)
        assert len(large(first)) > 1000
        assert not large(first) & large(second)
        assert first.id != second.id


@pytest.mark.parametrize("at", [*range(4), BEGINS + 1, BEGINS + 5, *RLWE, -1])
def test_any_words_are_an_error_that_names_their_sender_or_a_wrong_result(trial, well, at):
    """Which parties that keep to the protocol never get; nothing else happens, and nothing hangs."""
    alice, bob = both(trial, noise, well[0].place(at))
    for party in (alice, bob):
        assert party.error is None or isinstance(party.error, mpc.PeerError), repr(party.error)
    if alice.error is not None:
        assert "bob" in str(alice.error)
    if bob.error is not None:
        # It does not wait in vain, wherever the other one has failed; or it notices, too.
        both_notice = at == 0 and "alice has another id of the session" in str(bob.error)
        assert both_notice or str(bob.error).startswith("alice stopped: ")


def ones(transport, messages):
    """As many words, whose numbers are no residues."""
    return [(np.full_like(words, 2**64 - 1), opening) for words, opening in messages]


def wrong_position(transport, messages):
    """As many words, with a position of transfers that is another: the transport does not know."""
    changed = []
    for words, opening in messages:
        copy = words.copy()
        if len(copy):
            copy[:, 0] += np.uint64(7)
        changed.append((copy, opening))
    return changed


@pytest.mark.parametrize(
    ("spoil", "at"), [(wrong_position, "extension"), (ones, RLWE[1]), (ones, RLWE[3])]
)
def test_what_only_the_pair_finds_wrong_ends_the_session_of_both(trial, well, spoil, at):
    if at == "extension":
        # The first message of bob's that begins with a position: the transfers' first.
        at = next(
            k
            for k, words in well[1].own.items()
            if k > BEGINS and words.size > 1000 and not words[0]
        )
    else:
        at = well[0].place(at)
    alice, bob = both(trial, spoil, at)
    assert isinstance(alice.error, mpc.FrameError) and "bob" in str(alice.error)
    assert alice.after == "the session is closed" == bob.after
    assert str(bob.error).startswith("alice stopped: ")


@pytest.mark.parametrize(("victim", "how"), [("alice", programs.KILL), ("bob", programs.STOP)])
def test_a_process_that_is_struck_is_named(victim, how, tmp_path):
    with pytest.raises(mpc.LaunchError) as caught:
        start(
            lambda _: programs.Struck(victim, how, 0.3, tmp_path, warm=True), NAMES,
            timeout=PATIENCE, answer_timeout=2 * ANSWER, provider=False,
        )  # fmt: skip
    (other,) = set(NAMES) - {victim}
    told = (tmp_path / other).read_text()
    if how == programs.KILL:
        assert caught.value.errors[victim] == "the process ended with exit code -9"
        assert told.startswith("PeerClosedError: ") and victim in told
    else:
        assert told.startswith("PeerTimeoutError: ")
        assert f"{victim} did not answer within" in told and "in round" in told
