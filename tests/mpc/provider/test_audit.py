"""Audits in one process: what is found, what is not accused, and which keys are asked for."""

import os
from functools import partial
from hashlib import sha256

import numpy as np
import pytest

import mpc
from mpc.core.correlation import MaskRef, Part
from mpc.core.keys import fresh_streams
from mpc.core.watching import Watch, input_id, input_streams, role_streams
from mpc.protocols.product import ProductTerm
from mpc.provider.announced import OpenedKeys, Tellers
from mpc.provider.audit import (
    CorrectionTag,
    Needed,
    Recomputation,
    blocks_needed,
    draw,
    requests_of,
)
from mpc.provider.dealer import Provider
from mpc.provider.requests import Block
from mpc.provider.watched import watched_provider
from ring import fresh_key
from ring.errors import ArgumentError
from ring.opened_blocks import OpenedStreams
from ring.streams import OWN_IDS, block_of
from tests.helpers.chances import chance_of_count

LIMIT = 1 << 27
NAMES = ("alice", "bob", "carol", "dave", "erin")
# How many parts of an honest provider are audited; CONTRIBUTING has the campaign.
PARTS = int(os.environ.get("SOTTO_AUDITS", "150"))


def program(s):
    x = s.share(np.linspace(-9, 9, 24), owner="alice", bound=10)
    y = s.share(np.linspace(5, -5, 24), owner=s.parties[-1], bound=10)
    w = s.share(np.ones((4, 3)), owner="alice", bound=2)
    w.kept = True  # as a model's weights: a mask with a block of its own
    z = x * (x + y)
    (z.truncate() * y).relu()
    (x.reshape(6, 4) @ w).relu()
    (y.reshape(6, 4) @ w).reveal()
    hot = z.reshape(-1, 6).argmax(axis=1, one_hot=True)
    (x < y) * z
    np.exp(-abs(x))
    np.tanh(y)
    return hot.sum().reveal()


def tag_of(key, number, corrections):
    tag = CorrectionTag(key, number)
    for words in corrections:
        tag.add(words)
    return tag.end()


class Trial:
    """A provider, the keys of its parties, and an auditor to whom they open blocks."""

    def __init__(self, parties=2):
        self.streams, keys = fresh_streams(parties)
        self.provider, self.parties = Provider(keys), parties
        self.key = fresh_key()
        self.auditor = Recomputation(parties)
        self.audited = 0

    def deal(self, frame):
        """Return the corrections of a part."""
        words = []
        for id, correlation in requests_of(frame, LIMIT):
            words.append(np.empty(correlation.corrected_words, np.uint64))
            self.provider.correct(id, correlation, words[-1])
        return words

    def is_right(self, number, frame, corrections):
        """Audit a part as the last party and the auditor do."""
        requests = requests_of(frame, LIMIT)
        needed = blocks_needed(requests, self.parties)
        opened = [
            (
                b"".join(map(streams.masks.key, blocks.masks)),
                b"".join(map(streams.corrections.key, blocks.corrections)),
            )
            for streams, blocks in zip(self.streams, needed, strict=True)
        ]
        self.audited += 1
        computed = self.auditor.corrections(requests, needed, opened)
        return tag_of(self.key, number, computed) == tag_of(self.key, number, corrections)


class WatchedTrial(Trial):
    """The same where parties watch one another: each announces parts, and opens keys of two roles."""

    def __init__(self, parties=3):
        super().__init__(parties)
        keys = [fresh_key() for _ in range(parties)]
        self.streams = [role_streams(key, parties) for key in keys]
        self.provider = watched_provider(keys)
        self.names = NAMES[:parties]
        self.tellers = Tellers("auditor", self.names, "malicious", signs=False)
        # What a party tells the auditor in place of what it should: tags, or keys.
        self.lies = {}

    def is_right(self, number, frame, corrections):
        requests = requests_of(frame, LIMIT)
        tag, told = tag_of(self.key, number, corrections), []
        for name in self.names:
            said = frame if name == self.names[-1] else sha256(frame).digest()
            tags = tag if name in self.tellers.receivers else b""
            tags = self.lies.get((name, "tags"), tags)
            told.append(self.tellers.add(name, said, requests[-1][0], tags))
        assert told[:-1] == [None] * (self.parties - 1) and told[-1].frame == frame
        needed = blocks_needed(requests, self.parties)
        opened = OpenedKeys(self.names, self.tellers.roles)
        for name, roles in self.tellers.roles.items():
            keys = [
                (
                    b"".join(map(self.streams[role].masks.key, needed[role].masks)),
                    b"".join(map(self.streams[role].corrections.key, needed[role].corrections)),
                )
                for role in roles
            ]
            opened.add(name, self.lies.get((name, "keys"), lambda keys: tuple(keys))(keys))
        self.audited += 1
        computed = self.auditor.corrections(requests, needed, opened.take())
        return tag_of(self.key, number, computed) == told[-1].tags


def correlations(parties, security="semi-honest"):
    with mpc.Session(NAMES[:parties], security=security) as s:
        return s.plan(program).correlations


@pytest.fixture(
    scope="module",
    params=[(2, Trial), (3, Trial), (3, WatchedTrial), (5, WatchedTrial)],
    ids=["2", "3", "3 watched", "5 watched"],
)
def asked(request):
    parties, kind = request.param
    security = "malicious" if kind is WatchedTrial else "semi-honest"
    return partial(kind, parties), correlations(parties, security)


def test_an_honest_provider_is_never_accused(asked):
    """Parts of every size, at ids anywhere, those that lie in two blocks among them."""
    start, found = asked
    trial = start()
    generator = np.random.default_rng(7)
    number = 0
    while number < PARTS:
        # The program again, under other ids, cut elsewhere.
        base = int(generator.integers(0, 1 << 40))
        k = 0
        while k < len(found) and number < PARTS:
            size = int(generator.integers(1, 6))
            block = Block.of(found[k : k + size], 0, found[-1][0])
            k += size
            for part in block.parts(base):
                assert trial.is_right(number, part.frame, trial.deal(part.frame))
                number += 1
    assert trial.audited == number >= PARTS


def test_every_correlation_dealt_wrongly_is_found(asked):
    start, found = asked
    trial = start()
    kinds = set()
    for number, (id, correlation) in enumerate(found):
        if not correlation.corrected_words:
            continue
        kinds.add(type(correlation))
        (part,) = Block.of([(id, correlation)], 0, id).parts(0)
        corrections = trial.deal(part.frame)
        # One bit: that of a sign among them.
        corrections[0][number % len(corrections[0])] ^= np.uint64(1 << (63 if number % 2 else 0))
        assert not trial.is_right(number, part.frame, corrections)
    assert len(kinds) > 5


@pytest.mark.parametrize("wrong", [1, 4, 12])
def test_catch_rate(asked, wrong):
    """Of m bad parts, 1 - (1 - rate)^m is caught; the coin is drawn as the service draws it."""
    start, found = asked
    rate, runs, caught = 0.1, 250, 0
    trial = start()
    (part,) = Block.of(found[-1:], 0, found[-1][0]).parts(0)
    right = trial.deal(part.frame)
    spoiled = [words ^ np.uint64(1 << 40) for words in right]
    number = 0
    for _ in range(runs):
        verdicts = []
        for k in range(12):
            number += 1
            if draw(rate, 1):
                dealt = spoiled if k < wrong else right
                verdicts.append((trial.is_right(number, part.frame, dealt), k >= wrong))
        assert all(verdict == honest for verdict, honest in verdicts)
        caught += not all(verdict for verdict, _ in verdicts)
    expected = 1 - (1 - rate) ** wrong
    # False once in a hundred million runs.
    assert chance_of_count(caught, runs, expected) > 1e-9


@pytest.mark.parametrize("parties", [3, 5])
def test_of_a_party_that_lies_nothing_is_computed(parties):
    """Whether the provider deals as agreed or not: nobody is accused, and nothing accepted."""
    found = correlations(parties, "malicious")
    (part,) = Block.of(found[-1:], 0, found[-1][0]).parts(0)
    for name in NAMES[:parties]:
        for lie in ("tags", "own keys", "keys of the next"):
            for change in (0, 1 << 40):
                trial = WatchedTrial(parties)
                corrections = [words ^ np.uint64(change) for words in trial.deal(part.frame)]
                if lie == "tags":
                    trial.lies[name, lie] = bytes(16)
                    match = "different corrections|tags of corrections that it does not get"
                else:
                    which = 0 if lie == "own keys" else 1

                    def forged(keys, which=which):
                        keys[which] = bytes(len(keys[which][0])), bytes(len(keys[which][1]))
                        return tuple(keys)

                    trial.lies[name, "keys"] = forged
                    match = "opened different keys of one role"
                with pytest.raises(mpc.FrameError, match=match):
                    trial.is_right(0, part.frame, corrections)


def test_a_rate_of_one_draws_every_part():
    assert draw(1.0, 1000) == tuple(range(1000))


def test_only_keys_that_are_needed_are_asked_for():
    """A mask of one party alone takes its key alone, and that of a model its own block."""
    x = MaskRef(130, Part((2, 3)), owner=0)
    w = MaskRef(OWN_IDS + 7, Part((3, 2)), without=2)
    term = ProductTerm("matmul", x, w, (2, 2))
    first, second, third = blocks_needed([(300, term)], 3)
    assert first == Needed((block_of(130), OWN_IDS + 7), (block_of(300),))
    assert second == Needed((OWN_IDS + 7,), (block_of(300),))
    assert third == Needed((), ())


def test_other_blocks_stay_closed():
    """What the auditor was given for one part opens nothing of another, nor is it kept."""
    found = correlations(2)
    trial = Trial()
    part = next(Block.of(found[-1:], 0, found[-1][0]).parts(0))
    assert trial.is_right(0, part.frame, trial.deal(part.frame))
    requests = requests_of(part.frame, LIMIT)
    needed = blocks_needed(requests, 2)
    nothing = [Needed((), ()) for each in needed]
    with pytest.raises(ArgumentError, match="was not opened"):
        list(trial.auditor.corrections(requests, nothing, [(b"", b"")] * 2))


def test_the_key_of_one_input_of_watched_parties_opens_no_other():
    """One may be a batch, which is audited, and the other a model's weights."""
    keys = [fresh_key() for _ in range(3)]
    ids = [input_id(1, number) for number in (5, 6, 200)]
    for key in keys:
        masks = role_streams(key, 3).masks
        assert len({masks.key(block_of(id)) for id in ids}) == len(ids)
    # And it opens what the owner and the holders of the role have expanded.
    watch = Watch(1, {1: input_streams(keys, 1)}, {})
    for id in ids:
        total, words = np.zeros(4, np.uint64), np.empty(4, np.uint64)
        for key in keys:
            opened = OpenedStreams()
            opened.open(block_of(id), role_streams(key, 3).masks.key(block_of(id)))
            opened.fill(words, id)
            total += words
        assert np.array_equal(total, watch.whole_mask(1, id, (4,)))
