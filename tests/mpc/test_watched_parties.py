"""Parties of which one deviates: every message is attacked, and what the others do is recorded."""

import ast
import functools
import itertools
import operator
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import mpc
import nn
from mpc.array.shared_array import SharedArray
from mpc.command.self_test import CHECKS
from mpc.core.errors import ABORTED, AbortError, FrameError
from mpc.core.frames import Kind
from mpc.core.runtime import Result, Runtime
from mpc.core.watching import Checks
from mpc.provider.watched import Requests, watched_provider
from nn.shared import fit
from tests.helpers.program_fuzz import programs
from tests.helpers.program_fuzz import run as run_program
from tests.helpers.watched import MORE, NAMES, LocalWatched, LostError, run
from tests.helpers.watched_serving import MODEL as SERVED
from tests.helpers.watched_serving import ROWS, serving

ROOT = Path(__file__).resolve().parents[2]
# A tampering for every message of every program, or a share of them in each run.
EVERY = "SOTTO_TAMPERINGS" in os.environ
RANDOM_PROGRAMS = int(os.environ.get("SOTTO_WATCHED_PROGRAMS", "20"))
SEED = int(os.environ.get("SOTTO_SEED", "0")) or int.from_bytes(os.urandom(4), "big")

pytestmark = pytest.mark.filterwarnings("ignore::mpc.RangeWarning")

X = np.random.default_rng(0).random((4, 6))
Y = np.arange(4) % 3
_DRAWN = np.random.default_rng(3)
MODEL = nn.MLP.from_parameters(
    [_DRAWN.normal(0, 1, shape) for shape in ((6, 5), (5,), (5, 3), (3,))]
)
LINEAR = nn.MLP.from_parameters([_DRAWN.normal(0, 1, shape) for shape in ((6, 3), (3,))])


METHODS = ("open", "open_to", "tell", "give", "open_more", "begin_with")


def checked(check):
    """Return a self-test as a program."""

    def program(session):
        found = check.run(*check.make(session))
        return found.reveal() if isinstance(found, SharedArray) else found

    return program


def inference(session):
    secret = MODEL.share(session, owner="alice")
    return secret(secret.share_rows(X, owner="bob")).argmax(axis=1).reveal()


def training(session):
    rows, targets = session.share(X, owner="bob"), session.share(nn.one_hot(Y), owner="carol")
    model = nn.MLP((6, 4, 3), random_state=0).fit(rows, targets, epochs=1, batch_size=4)
    return model.reveal().layers[0].weights


def results(session):
    """Reveal products, winners and values, to all and to one, in every form."""
    x, y = session.share(X, owner="alice"), session.share(X - 0.5, owner="bob")
    found = [(x * y).reveal(), (x * y).reveal(to="carol"), x.argmax(axis=1).reveal(to="alice")]
    whole = session.share(Y, owner="carol")
    again = (x * y).truncate()
    return [*found, whole.reveal(), (x * whole[0]).relu().reveal(to="bob"), again.reveal()]


def put_off(session):
    """What is put off until shares are needed: winners as numbers, and a product revealed to one."""
    x = session.share(X, owner="alice")
    product = x * session.share(X, owner="bob")
    product.reveal(to="carol")
    return (product.relu() + x.argmax(axis=1, one_hot=True) * x).reveal()


def training_on_results(session):
    """Data that was computed, and is masked as a whole."""
    rows = session.share(X, owner="bob") + session.share(X, owner="alice")
    targets = session.share(nn.one_hot(Y), owner="carol")
    model = nn.MLP((6, 3), random_state=0).fit(rows, targets, epochs=1, batch_size=4)
    return model.reveal().layers[0].weights


def stopping(session):
    """Train until an epoch has not been better than those before, and return the scores.

    What is held out says the opposite, so that is after the second one.
    """
    rows, targets = session.share(X, owner="bob"), session.share(4 * X[:, :1], owner="carol")
    held_out = session.share(X[:2], owner="alice"), session.share(-4 * X[:2, :1], owner="bob")
    model = nn.MLP((6, 1), random_state=0).fit(
        rows,
        targets,
        epochs=5,
        batch_size=4,
        loss="squared_error",
        validation=held_out,
        patience=1,
    )
    return model.validation_scores_


def told(session):
    session.drop_prepared()
    return session.share(X, owner="bob").reveal()


def saving(session):
    """Save a model, load it, and evaluate what was loaded."""
    secret = LINEAR.share(session, owner="alice", scores=True)
    with tempfile.TemporaryDirectory() as folder:
        nn.save_shares(secret, folder)
        again = nn.load_shares(session, folder)
    return again(again.share_rows(X, owner="bob")).reveal()


def fitted(session, folder, **how):
    rows, targets = session.share(X, owner="bob"), session.share(nn.one_hot(Y), owner="carol")
    model = nn.MLP((6, 3), random_state=0)
    return model.fit(rows, targets, epochs=1, batch_size=4, checkpoint=folder, **how)


def resuming(session):
    """Train with checkpoints, and take the trained weights from these."""
    with tempfile.TemporaryDirectory() as folder:
        fitted(session, folder)
        model = fitted(session, folder, resume=True)
    return model.reveal().layers[0].weights


OTHERS = {
    each.__name__: each
    for each in (
        inference, training, training_on_results, stopping, results, put_off, told, saving, resuming,
        serving,
    )
}  # fmt: skip
PROGRAMS = {
    **{f"{k} {check.name}: {check.what}": checked(check) for k, check in enumerate(CHECKS)},
    **OTHERS,
}


TOLERANCES = dict(zip(PROGRAMS, (check.tolerance for check in CHECKS), strict=False))
RUNTIME = ROOT / "mpc/core/runtime.py"


def innermost(steps):
    while steps.gi_yieldfrom is not None:
        steps = steps.gi_yieldfrom
    return steps


@pytest.fixture(scope="module")
def honest():
    """Every program's honest run, where in the source something was opened, and where in a reveal."""
    sites, revealed = set(), set()

    def traced(program):
        def tracing(session):
            for name in METHODS:
                setattr(session, name, seen(session, getattr(session, name)))
            return program(session)

        return tracing

    def seen(session, method):
        def called(*args, **kwargs):
            codes = {(sys._getframe(1).f_code, method.__name__): True}
            carried = [(other._steps, other.message) for other in session._beside]
            caller = sys._getframe(1)
            if caller.f_code is Runtime._open_alone.__code__:
                carried.append((caller.f_back.f_locals["steps"], caller.f_locals["message"]))
            for steps, message in carried:
                if message is not None:
                    codes[innermost(steps).gi_code, "yield"] = isinstance(message, Result)
            for (code, kind), shown in codes.items():
                path = Path(code.co_filename)
                if path.is_relative_to(ROOT) and path != RUNTIME:
                    site = str(path.relative_to(ROOT)), code.co_name, kind
                    sites.add(site)
                    if shown and session._revealed >= 0:
                        revealed.add(site)
            return method(*args, **kwargs)

        return called

    return {name: run(traced(each)) for name, each in PROGRAMS.items()}, sites, revealed


def same(one, other, atol=1e-2):
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=True)
        return len(one) == len(other) and all(same(a, b, atol) for a, b in pairs)
    if one is None or other is None:
        return one is other
    return np.allclose(one, other, atol=atol)


def test_honest_parties_never_abort_and_are_right(honest):
    runs, _, _ = honest
    for number, check in enumerate(CHECKS):
        outcome = runs[f"{number} {check.name}: {check.what}"]
        assert not outcome.errors, (check.name, outcome.errors)
        for found in outcome.results:
            error = np.abs(np.asarray(found, float) - check.expected).max()
            assert error <= check.tolerance, check.name
    for name in OTHERS:
        assert not runs[name].errors, (name, runs[name].errors)
    assert all(same(each, MODEL.predict(X)) for each in runs["inference"].results)
    scores = LINEAR.decision_function(X)
    assert all(same(each, scores) for each in runs["saving"].results)
    winners = np.eye(6)[X.argmax(axis=1)]
    assert all(same(each, X * X + winners * X) for each in runs["put_off"].results)
    labels, refused, scores = zip(*runs["serving"].results, strict=True)
    assert all(same(each, SERVED.predict(ROWS[:2])) for each in labels) and refused == (None,) * 3
    assert all(same(each, SERVED.decision_function(ROWS[:1])) for each in scores)
    products = [X * (X - 0.5), X.argmax(axis=1), np.maximum(X * Y[0], 0)]
    for party, found in enumerate(runs["results"].results):
        assert same(found[0], products[0]) and same(found[5], products[0])
        assert same(found[1], products[0] if party == 2 else None)
        assert same(found[2], products[1] if party == 0 else None)
        assert same(found[4], products[2] if party == 1 else None)


# Where something is opened that no program above does, and why.
EXEMPT = {
    ("mpc/protocols/masking.py", "mask_to", "open_to"): "needs a mask that is an owner's alone",
    ("nn/serving/turns.py", "_told", "open"): "of semi-honest parties",
    ("nn/serving/stocks.py", "use_stocks", "tell"): "of two parties alone",
}
# Rooms that work for two parties alone; or with workers, which are processes:
# tests/parties/test_watched_apart.py.
EXEMPT_ROOMS = ("mpc/two_party/", "mpc/workers/")


def opens(value):
    """Whether a protocol that is written as Steps opens what it yields."""
    if isinstance(value, ast.Tuple):
        return isinstance(value.elts[-1], ast.Constant) and value.elts[-1].value in ("sum", "xor")
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "Result"


def openings(tree, name, function=""):
    """Yield (file, function, method) wherever a session opens something."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            own = of == "self" and name == "mpc/session.py"
            if node.func.attr in METHODS and (own or of.endswith("session")):
                yield name, inside, node.func.attr
        if isinstance(node, ast.Yield) and opens(node.value):
            yield name, inside, "yield"
        yield from openings(node, name, inside)


def test_every_opening_of_the_source_is_attacked_or_refused(honest):
    _, sites, _ = honest
    static = set()
    for path in (path for package in ("mpc", "nn") for path in (ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if path != RUNTIME and not name.startswith(EXEMPT_ROOMS):
            static |= set(openings(ast.parse(path.read_text()), name))
    assert len(static) > 30
    missing = static - sites - set(EXEMPT)
    assert not missing, f"openings without a program here: {sorted(missing)}"
    assert not set(EXEMPT) - static, "exemptions of nothing"
    assert not sites & set(EXEMPT)


# What is opened without a mask, but for coins. An opening that is new in the source has to be masked,
# or to be here and within `revealing`.
REVEALED = {
    ("mpc/protocols/sharing.py", "reveal", "open"),
    ("mpc/protocols/sharing.py", "reveal", "open_to"),
    ("mpc/protocols/truncation.py", "reveal", "open"),
    ("mpc/protocols/truncation.py", "reveal", "open_to"),
    ("mpc/protocols/argmax.py", "reveal", "open"),
    ("mpc/protocols/argmax.py", "reveal", "open_to"),
    ("mpc/protocols/range_check.py", "none_steps", "yield"),
    ("mpc/protocols/intervals.py", "_verdicts", "open"),
    ("mpc/protocols/shuffled_sort.py", "less", "open"),
    ("nn/serving/turns.py", "_answers", "open"),
}


def test_what_is_revealed_is_checked_before_and_after(honest):
    _, _, revealed = honest
    assert revealed == REVEALED


def test_a_reveal_opens_once():
    with mpc.Session(("alice", "bob", "carol"), security="malicious") as session:
        shares = (session.share(X, owner="alice") + 0).shares
        with session.revealing():
            session.open((shares, "sum"))
            with pytest.raises(mpc.SessionError, match="opened between two checks"):
                session.open((shares, "sum"))


def test_a_reveal_takes_along_nothing_of_a_protocol_beside_it(monkeypatch):
    with mpc.Session(("alice", "bob", "carol"), security="malicious") as session:
        shares, counts = (session.share(X, owner="alice") + 0).shares, []
        deliver = session.transport.open

        def counted(messages):
            counts.append(len(messages))
            return deliver(messages)

        def beside():
            yield shares, "sum"

        monkeypatch.setattr(session.transport, "open", counted)
        with session.beside(beside()):
            with session.revealing():
                session.open((shares, "sum"))
            session.open((shares, "sum"))
        assert counts == [1, 2]


class Tampering:
    """Changes one message of a party; keeps which checks it had begun by then."""

    def __init__(self, sender, number, change, parties=3):
        self.sender, self.number, self.change, self.parties = sender, number, change, parties
        self.begun = self.done = 0

    def __call__(self, message):
        if message.sender != self.sender:
            return
        if message.number == self.number:
            before = [each.tobytes() for each in message.arrays]
            self.change(message)
            self.done += before != [each.tobytes() for each in message.arrays]
            self.kind, self.receiver = message.kind, message.receiver
            self.public = message.public
            self.begun = self.checks // (self.parties - 1)
        if message.kind is Kind.CHECK:
            self.checks += 1

    checks = 0


def passed(outcome, party):
    """Return how many checks a party has accepted."""
    session = outcome.sessions[party]
    return session.transport.accepted


def flip(generator, top):
    def change(message):
        arrays = [each for each in message.arrays if each.size]
        words = arrays[generator.integers(len(arrays))].reshape(-1)
        bit = 63 if top else int(generator.integers(64))
        words[generator.integers(len(words))] ^= np.uint64(1) << np.uint64(bit)

    return change


def attack(program, sender, number, change, right=None, atol=1e-2, parties=3):
    """Run a program with one message changed; all honest parties must stop, and reveal nothing more.

    `right`: what it gives, within `atol`. One may have that who was told the truth in the last check.
    """
    tampering = Tampering(sender, number, change, parties)
    outcome = run(program, tampering, parties=parties)
    assert tampering.done == 1
    for party in range(parties):
        if party == sender:
            continue
        error = outcome.results[party]
        # What is opened to one party, its watcher and who receives it compare.
        known = {Kind.CHECK: (tampering.receiver,)}
        if parties > 3:
            known[Kind.REVEAL] = (tampering.receiver, (sender - 1) % parties)
        lied_to_other = party not in known.get(tampering.kind, range(parties))
        if lied_to_other and not isinstance(error, Exception):
            assert same(error, right[party], atol), (sender, number, party)
            continue
        if tampering.public:
            # Public words, of which wrong ones are refused at once: no secret is in them.
            assert isinstance(error, (AbortError, FrameError, LostError)), (sender, number, error)
        else:
            assert isinstance(error, AbortError), (sender, number, party, error)
            assert str(error) == ABORTED
        # A lie in a check is noticed by whom it is told to; the others may have accepted.
        assert passed(outcome, party) <= tampering.begun + lied_to_other, (sender, number)
    return tampering.kind


def messages_of(outcome):
    """Return (sender, number) of all messages with words in them."""
    return [
        (frame[0], frame[2])
        for frame in outcome.network.frames
        if any(np.prod(shape) for shape in frame[5])
    ]


def test_every_tampered_message_is_caught_before_anything_is_revealed(honest, record_property):
    runs, _, _ = honest
    generator = np.random.default_rng(SEED)
    counts = Counter()
    for name, program in PROGRAMS.items():
        found, right = messages_of(runs[name]), runs[name].results
        counts["messages"] += len(found)
        if not EVERY:
            # At each party one; a large program is attacked once.
            by_sender = [[m for m in found if m[0] == sender] for sender in range(3)]
            found = [some[generator.integers(len(some))] for some in by_sender]
            found = found if name in OTHERS else found[generator.integers(3) :][:1]
        for sender, number in found:
            for top in (True, False) if EVERY else (bool(generator.integers(2)),):
                change, atol = flip(generator, top), max(1e-2, 2 * TOLERANCES.get(name, 0))
                kind = attack(program, sender, number, change, right, atol)
                counts["tampered"] += 1
                counts[f"tampered {kind.name}"] += 1
    print(f"SOTTO_SEED={SEED}: {dict(counts)}, all caught")
    assert counts["tampered"] >= len(PROGRAMS)


def test_every_message_of_small_programs_is_attacked(honest):
    """In each run: inputs, openings, reveals to all and to one, what is told, and checks."""
    runs, _, _ = honest
    generator = np.random.default_rng(SEED)
    kinds = Counter()
    for name in ("told", "results", "saving"):
        for sender, number in messages_of(runs[name]):
            change, right = flip(generator, True), runs[name].results
            kinds[attack(PROGRAMS[name], sender, number, change, right)] += 1
    assert set(kinds) == {Kind.OPEN, Kind.REVEAL, Kind.CHECK}
    assert sum(kinds.values()) > 60


def test_no_party_decides_on_a_score_that_was_not_checked(honest, monkeypatch):
    """Early stopping: whatever is changed, each decision is on scores of the honest run."""
    seen = threading.local()
    stalled = fit.stalled

    def deciding(scores, patience):
        seen.scores = list(scores)
        return stalled(scores, patience)

    def program(session):
        seen.scores = []
        try:
            return stopping(session)
        finally:
            decided[session.me] = seen.scores

    runs, _, _ = honest
    scores = runs["stopping"].results[0]
    assert len(scores) == 2
    decided = {}
    monkeypatch.setattr(fit, "stalled", deciding)
    generator = np.random.default_rng(SEED)
    found = messages_of(runs["stopping"])
    for k in range(len(found) if EVERY else 6):
        sender, number = found[k if EVERY else generator.integers(len(found))]
        decided.clear()
        attack(program, sender, number, flip(generator, True), runs["stopping"].results)
        for party in {0, 1, 2} - {sender}:
            so_far = decided[NAMES[party]]
            assert same(so_far, scores[: len(so_far)]), (sender, number, so_far)


@pytest.mark.parametrize("sender", range(3))
def test_an_owner_who_gives_the_others_different_inputs_is_caught(sender):
    owner = ("alice", "bob", "carol")[sender]

    def program(session):
        return (session.share(X, owner=owner) * 2).reveal()

    def other(message):
        message.arrays[0] += np.uint64(1)

    for number in (0, 1):  # to the next party, and to the one before
        attack(program, sender, number, other)
    for number in range(4):
        attack(program, sender, number, other, parties=5)

    def both(message):
        if message.sender == sender and message.number in (0, 1):
            message.arrays[0] += np.uint64(1 << 16)

    # Told alike, it is another input, which every owner is free to give.
    outcome = run(program, both)
    honest = [found for party, found in enumerate(outcome.results) if party != sender]
    assert not [found for found in honest if not isinstance(found, AbortError)] or all(
        same(found, 2 * X + 2) for found in honest
    )


@pytest.mark.parametrize("receivers", [(1,), (0, 1)])
def test_who_says_that_it_has_used_other_ids_is_named(receivers):
    """Else the others would go on with ids of which each has its own, or with none that are left."""

    def ahead(message):
        if message.sender == 2 and message.public and message.receiver in receivers:
            message.arrays[0][:] = (1 << 48) - 1

    outcome = run(told, ahead)
    for party in receivers:
        assert isinstance(outcome.results[party], FrameError)
        assert str(outcome.results[party]).startswith("carol must have used ids up to 0, got 28147")
    assert isinstance(outcome.results[0], (FrameError, LostError))


class Rushing(LocalWatched):
    """A party that spoils an opening, and in the check speaks after it has heard the two others."""

    answer = None

    def _exchange(self, kind, sent, wanted):
        if kind is not Kind.CHECK:
            return super()._exchange(kind, sent, wanted)
        heard = super()._exchange(kind, {}, wanted)
        words = {q: each[0] for q, each in heard.items()}
        own = {q: each[0] for q, each in sent.items()}
        answers = type(self).answer(words, own, self)
        super()._exchange(kind, {q: [each] for q, each in answers.items()}, {})
        return heard


def total(heard):
    return functools.reduce(operator.xor, heard.values())


# What the last speaker may try: the XOR of what it has heard (which a check of one message to all
# would accept), the others' messages to itself handed on, and both with its own.
ANSWERS = {
    "sum": lambda heard, own, me: dict.fromkeys(own, total(heard)),
    "others'": lambda heard, own, me: {q: total(heard) ^ heard[q] for q in own},
    "back": lambda heard, own, me: dict(heard),
    "own and sum": lambda heard, own, me: {q: own[q] ^ total(heard) for q in own},
    "nothing": lambda heard, own, me: {q: each * 0 for q, each in own.items()},
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("parties", "cheater"), [(3, 0), (3, 1), (3, 2), (4, 3), (5, 2)])
def test_who_speaks_last_in_the_check_cannot_hide_what_it_has_done(
    parties, cheater, answer, monkeypatch
):
    def spoil(message):
        if message.sender == cheater and message.number == 3 and message.kind is not Kind.CHECK:
            message.arrays[0][...] += np.uint64(1)
            spoilt.append(message)

    spoilt = []
    monkeypatch.setattr(Rushing, "answer", staticmethod(ANSWERS[answer]))
    outcome = run(inference, spoil, transports={cheater: Rushing}, parties=parties)
    assert spoilt
    for party in set(range(parties)) - {cheater}:
        assert isinstance(outcome.results[party], AbortError)
        assert passed(outcome, party) == 0


@pytest.mark.parametrize("parties", [3, 4])
def test_who_speaks_last_and_has_not_deviated_is_accepted(parties, monkeypatch):
    monkeypatch.setattr(Rushing, "answer", staticmethod(lambda heard, own, me: own))
    for cheater in range(parties):
        assert not run(inference, transports={cheater: Rushing}, parties=parties).errors


def poisoned(secret, cheater, bit=63):
    """Return what two honest parties send after `cheater` has given its neighbour another Delta of x."""

    def program(session):
        x, w = session.share([0.5], owner="bob"), session.share([secret], owner="alice")
        y = (x + w * 0).relu()  # an opening of carol, too
        return ((y + 0) * w).relu().reveal()

    def spoil(message):
        if message.sender == cheater and message.kind is Kind.OPEN and not done:
            done.append(message.number)
            message.arrays[0][...] ^= np.uint64(1) << np.uint64(bit)

    done = []
    outcome = run(program, spoil)
    frames = [frame for frame in outcome.network.frames if frame[0] != cheater]
    stops = [len([f for f in frames if f[0] == party]) for party in range(3)]
    return sorted(frames, key=lambda f: (f[0], f[2])), stops, outcome


@pytest.mark.parametrize("cheater", range(3))
def test_no_frame_before_the_check_depends_on_a_mismatch(cheater):
    """The attack of an abort at the first mismatch: its time would tell whether a weight is odd."""
    even, odd = 0.25, 0.25 + 2.0**-16
    found = {secret: [poisoned(secret, cheater)[:2] for _ in range(3)] for secret in (even, odd)}
    first = found[even][0]
    assert all(each == first for runs in found.values() for each in runs)
    # Up to the first check it is what an honest run sends, frame by frame.

    def until_check(frames):
        return {
            party: list(itertools.takewhile(
                lambda f: f[3] is not Kind.CHECK, (f for f in frames if f[0] == party)
            ))
            for party in range(3) if party != cheater
        }  # fmt: skip

    spoilt, _, outcome = poisoned(even, cheater)
    assert all(isinstance(outcome.results[p], AbortError) for p in range(3) if p != cheater)
    honest, _, clean = poisoned(even, 3)
    assert not clean.errors
    assert until_check(spoilt) == until_check(honest)


def test_tags_of_a_spoiled_view_are_hidden_from_who_has_spoiled_it():
    """What the neighbour sends in the check is XORed with a mask that the cheater cannot compute.

    For each of the two guesses of a secret the cheater computes the tag that its neighbour would have:
    neither guess, nor their difference to what comes, repeats.
    """
    seen = set()
    keys = {pair: bytes([k]) * 16 for k, pair in enumerate(((0, 1), (0, 2), (1, 2)))}

    def checks(me):
        others = [q for q in range(3) if q != me]
        return Checks(me, {q: keys[min(me, q), max(me, q)] for q in others})

    def round_of(deviates, secret):
        a, b, c = (checks(me) for me in range(3))
        # c = 2 has sent role 2's words: 0 computes them, 1 receives them.
        a.add(2, "sum", np.array([7], np.uint64))
        b.add(2, "sum", np.array([8 if deviates else 7], np.uint64))
        # Of role 0, party 2 computes what it should be, and party 1 what its spoiled view makes of it.
        c.add(0, "sum", np.array([5], np.uint64))
        b.add(0, "sum", np.array([5 + (secret if deviates else 0)], np.uint64))
        c.add(1, "sum", np.array([3], np.uint64))
        a.add(1, "sum", np.array([3], np.uint64))
        return {0: a.begin(), 1: b.begin(), 2: c.begin()}

    for secret in (0, 1):
        sent = round_of(True, secret)
        seen.add(sent[1][2].tobytes())
        guesses = []
        for guess in (0, 1):
            twin = checks(2)
            twin.add(0, "sum", np.array([5 + guess], np.uint64))
            twin.add(1, "sum", np.array([3], np.uint64))
            guesses.append(twin.begin())
        # c compares both messages to it with every combination of what it can compute.
        heard = sent[0][2] ^ sent[1][2]
        known = [each for g in guesses for each in (*g.values(), g[0] ^ g[1])]
        assert not any((heard == each).all() for each in known)
    assert len(seen) == 2
    honest = round_of(False, 0)
    c = checks(2)
    c.add(0, "sum", np.array([5], np.uint64))
    c.add(1, "sum", np.array([3], np.uint64))
    c.begin()
    c.finish({0: honest[0][2], 1: honest[1][2]})


@pytest.mark.parametrize("owner", range(3))
def test_no_other_process_can_take_the_mask_off_an_input(owner):
    """A mask that is the owner's alone would be known to its watcher, who sees Delta."""
    name = ("alice", "bob", "carol")[owner]

    def program(session):
        x = session.share(X, owner=name)
        with pytest.raises(KeyError):
            session.streams[(session.here[0] + 2) % 3]
        mask = x.mask
        session.known = mask.delta[0] + mask.shares.sum(axis=0, dtype=np.uint64)
        assert mask.ref.owner is None and len(mask.rows) == 2
        assert x.plaintext is None
        return (x + 0).reveal()

    outcome = run(program)
    assert not outcome.errors
    encoded = np.rint(X * 65536).astype(np.int64).view(np.uint64)
    for session in outcome.sessions:
        assert (session.known != encoded).all()
        assert session.watch.inputs.keys() == {session.here[0]}


def test_the_words_that_one_process_lacks_differ_for_equal_inputs():
    found = []
    for _ in range(2):
        outcome = run(lambda session: session.share(X, owner="bob").mask.delta.copy())
        assert same(outcome.results[0], outcome.results[1])
        found.append(outcome.results[0])
    assert (found[0] != found[1]).all()


# The provider.


class Wrong:
    """A provider whose corrections for one class of correlations have one bit changed."""

    def __init__(self, keys, name):
        self._right, self._name = watched_provider(keys), name

    def correct(self, id, correlation, out):
        self._right.correct(id, correlation, out)
        if type(correlation).__name__ == self._name:
            out[: len(out) // 2] ^= np.uint64(0xFFFF)


def compared(session):
    return (session.share(X - 0.5, owner="alice") < session.share(X * 0, owner="bob")).reveal()


def test_a_provider_that_deals_its_two_receivers_different_tables_is_caught():
    count = itertools.count()
    outcome = run(
        compared, provider_of=lambda keys: Wrong(keys, "Window" if next(count) == 1 else "")
    )
    assert all(isinstance(found, AbortError) for found in outcome.results)


def test_a_provider_that_deals_both_the_same_wrong_tables_is_not_caught():
    """The provider is trusted to deal as it should: it changes results, and nobody notices."""
    outcome = run(compared, provider_of=lambda keys: Wrong(keys, "Window"))
    assert not outcome.errors
    assert not np.array_equal(outcome.results[0], X < 0.5)


def test_a_provider_deals_what_all_ask_for():
    requests = Requests(3)
    assert requests.add(0, b"one") == [] and requests.add(2, b"one") == []
    assert requests.add(0, b"two") == []
    assert requests.ahead(0) == (2, 6)
    assert requests.add(1, b"one") == [b"one"]
    assert requests.add(1, b"two") == []
    with pytest.raises(AbortError):
        requests.add(2, b"tvo")


def test_frames_without_a_byte_count_as_ahead_too():
    requests = Requests(3)
    for count in range(1, 4):
        assert requests.add(1, b"") == []
        assert requests.ahead(1) == (count, 0)
    requests.add(0, b"")
    assert requests.add(2, b"") == [b""]
    assert [requests.ahead(party) for party in range(3)] == [(0, 0), (2, 0), (0, 0)]


@pytest.mark.parametrize("liar", range(3))
def test_a_request_of_one_party_alone_is_not_dealt(liar):
    requests = Requests(3)
    for party in {0, 1, 2} - {liar}:
        assert requests.add(party, b"right") == []
    with pytest.raises(AbortError):
        requests.add(liar, b"right again")


# Random programs, and sessions whose parties all live here.


def test_random_programs_never_abort():
    ends, sizes = Counter(), itertools.cycle((3, 4, 5))

    @settings(
        max_examples=RANDOM_PROGRAMS, deadline=None, database=None,
        derandomize="SOTTO_WATCHED_PROGRAMS" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    # Warnings are of a process, and cannot be told apart in three threads.
    @given(programs(("check",)))
    def check(program):
        form, mode, inputs, steps = program
        outcome = run(
            lambda session: run_program(session, inputs, steps)[0],
            form=form, ranges=mode, parties=next(sizes),
        )  # fmt: skip
        if outcome.errors:
            raise outcome.errors[0]
        assert len(set(outcome.results)) == 1
        ends[outcome.results[0]] += 1

    check()
    print(dict(ends))
    assert ends["right"] > 0.35 * sum(ends.values())


@pytest.mark.parametrize("parties", [3, 4, 5])
def test_a_local_session_opens_the_same_and_counts_the_same(parties):
    outcome = run(inference, parties=parties)
    with mpc.Session(MORE[:parties], security="malicious") as session:
        assert session.security == "malicious" and "security='malicious'" in repr(session)
        assert same(inference(session), outcome.results[0])
        spent = session.cost()
        assert str(spent).endswith("security  malicious")
        plan = session.plan(inference).cost
    for each in outcome.sessions:
        assert each.cost().total.rounds == spent.total.rounds
        assert each.cost().total.sent == spent.total.sent
    assert (plan.total.rounds, plan.total.sent) == (spent.total.rounds, spent.total.sent)
    assert plan.total.correction_bytes == spent.total.correction_bytes


def test_a_semi_honest_session_says_nothing_of_it():
    with mpc.Session(security="semi-honest") as session:
        assert session.security == "semi-honest" and "security" not in repr(session)
        assert session.watch is None and "security" not in str(session.cost())
        x = session.share(X, owner="alice")
        assert x.plaintext is not None


def test_what_does_not_work_yet_is_refused_by_name():
    with pytest.raises(mpc.PartyError, match="third one need not own any data"):
        mpc.Session(security="malicious")
    with pytest.raises(mpc.ArgumentError, match="needs a crypto provider"):
        mpc.Session(("a", "b", "c"), provider=None, security="malicious")
    with pytest.raises(mpc.ArgumentError, match="security must be one of"):
        mpc.Session(security="covert")
    with mpc.Session(("alice", "bob", "carol"), security="malicious") as session:
        with pytest.raises(mpc.SessionError, match="two parties alone"):
            session.prepare_ahead(inference)
