"""Where randomness comes from, what the provider is told, and that secrets stay out of sight."""

import ast
import copy
import hmac
import inspect
import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import mpc
import ring
from mpc.core.correlation import Correlation, MaskRef, Part
from mpc.core.keys import fresh_streams, provider_streams
from mpc.protocols import intervals, range_check
from mpc.protocols.range_check import LIMIT
from mpc.provider.dealer import Provider
from ring.streams import BLOCK_IDS, OWN_IDS, NamedStream, NamedStreamBlocks, StreamBlocks

UNIT = 2.0**-16
SOURCES = sorted(
    path for package in (mpc, ring) for path in Path(package.__file__).parent.rglob("*.py")
)


# Randomness.


def test_every_key_is_drawn_from_the_operating_system(monkeypatch):
    drawn = []
    urandom = os.urandom

    def listen(count):
        drawn.append(urandom(count))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", listen)
    for n in (2, 3, 5):
        drawn.clear()
        with mpc.Session(("a", "b", "c", "d", "e")[:n]) as s:
            # One key of each party with the provider, one of each pair.
            assert [len(key) for key in drawn] == [16] * (n + n * (n - 1) // 2)
            assert len(set(drawn)) == len(drawn)
            x = s.share(np.ones(10), owner="a")
            (x * x).relu().reveal()
            assert len(drawn) == n + n * (n - 1) // 2


def words_of_a_session():
    with mpc.Session(("alice", "bob", "carol")) as s:
        x = s.share(np.zeros(20), owner="alice")
        y = s.share(np.zeros(20), owner="bob")
        arrays = [x, x * y, x.relu(), x < y, (x + y) * (x - y)]
        return np.concatenate([array.shares.reshape(-1) for array in arrays])


def test_two_sessions_have_nothing_in_common():
    first, second = words_of_a_session(), words_of_a_session()
    assert not set(first.tolist()) & set(second.tolist())


def test_everything_follows_from_the_operating_systems_generator(monkeypatch):
    def always_the_same():
        counter = itertools.count()
        monkeypatch.setattr(os, "urandom", lambda n: next(counter).to_bytes(n, "big"))

    always_the_same()
    first = words_of_a_session()
    np.random.seed(0)  # noqa: NPY002
    always_the_same()
    np.testing.assert_array_equal(first, words_of_a_session())
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda n: (99).to_bytes(n, "little"))
        assert not (first == words_of_a_session()).any()


def test_keys_are_held_by_those_who_share_them():
    streams, keys = fresh_streams(4)
    assert len(set(keys)) == 4

    def words(stream):
        out = np.empty(4, np.uint64)
        (stream.at(3) if isinstance(stream, NamedStreamBlocks) else stream).fill(out, 3)
        return tuple(out.tolist())

    for i, party in enumerate(streams):
        masks, corrections = provider_streams(keys[i])
        assert words(party.masks) == words(masks)
        assert words(party.corrections) == words(corrections)
        assert party.corrections.at(3).place(b"name") == corrections.at(3).place(b"name")
        assert sorted(party.pairs) == [j for j in range(4) if j != i]
        for j, stream in party.pairs.items():
            assert words(stream) == words(streams[j].pairs[i])
    alike = {words(stream) for party in streams for stream in party.pairs.values()}
    assert len(alike) == 6
    with_the_provider = {words(some) for p in streams for some in (p.masks, p.corrections)}
    assert len(with_the_provider) == 8
    assert not alike & with_the_provider
    assert len({party.corrections.at(3).place(b"name") for party in streams}) == 4


def expanded(key, label, count):
    """HKDF-SHA256 as RFC 5869 has it, without salt."""
    pseudo_random = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(pseudo_random, label + b"\1", "sha256")[:count]


def test_two_roots_follow_from_the_key_that_is_agreed_on():
    agreed = bytes(range(16))
    masks, corrections = provider_streams(agreed)
    roots = [expanded(agreed, b"sotto " + label, 16) for label in (b"masks", b"corrections")]
    assert len({agreed, *roots}) == 3
    named = NamedStreamBlocks(roots[1]).at(5)
    for mine, other, place in (
        (masks, StreamBlocks(roots[0]), 5),
        (corrections.at(5), named, named.place(b"name")),
    ):
        mine.fill(one := np.empty(9, np.uint64), place)
        other.fill(two := np.empty(9, np.uint64), place)
        np.testing.assert_array_equal(one, two)
    assert corrections.at(5).place(b"name") == named.place(b"name")


# Keys, shares and choices come from the operating system in these files, and from streams elsewhere.
FROM_THE_SYSTEM = (
    "ring/streams.py", "mpc/split.py", "two_party/base_ot.py", "two_party/extension.py",
    "two_party/seeds.py", "two_party/silent.py", "two_party/stock.py", "provider/audit.py",
)  # fmt: skip


def imported_by(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_other_generator_in_the_source(path):
    tree = ast.parse(path.read_text())
    imported = set(imported_by(tree))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    roots = {name.split(".")[0] for name in imported}
    assert not roots & {"random", "secrets", "uuid", "pickle"}
    # One module writes the log of the services, and takes names, shapes and counts alone.
    assert ("logging" in roots) == (path.name == "events.py")
    for name in imported | used:
        assert not name.startswith(("np.random", "numpy.random"))
        assert not name.endswith(("RandomState", "default_rng"))
    assert ("os.urandom" in used) == ("/".join(path.parts[-2:]) in FROM_THE_SYSTEM)


def test_there_is_no_switch_for_the_keys():
    options = set(inspect.signature(mpc.Session).parameters)
    assert not {o for o in options if any(w in o for w in ("seed", "key", "random", "debug"))}


# The provider.


def everything(s, a, b):
    """Use every kind of correlation."""
    x = s.share(a, owner="alice")
    y = s.share(b, owner="bob")
    product = (x @ y.T).relu() / 3
    chosen = np.where(x < y, x * y, x[::-1])
    hot = chosen.argmax(axis=1, one_hot=True)
    best = hot[:, [0, 2]] * x[:, [3, 1]]
    equal = (x == 0.5) * y
    gated = (x * y).gate(x > y)
    wide = x.derive(x.shares, frac_bits=0, bound=LIMIT)
    assert range_check.verdict(range_check.linear([(wide, 0)], (0,)))
    ends = np.full(product.shape, -(2**40)), np.full(product.shape, 2**40)
    assert intervals.groups_inside(product, *ends, (product.size,)).all()
    return (
        product, chosen, hot, best, equal, gated, x.softmax(), x.T[1:, None].max(), (x + 1) ** 3,
        np.reciprocal(x * x + 1), np.sort(np.tile(x, 3), axis=None), np.exp(x.with_bound(9)),
    )  # fmt: skip


def told(s, monkeypatch, *data):
    """Run everything; return what the provider was told and what it answered."""
    calls, answers = [], []
    correct = s.source.provider.correct

    def listen(id, correlation, out):
        correct(id, correlation, out)
        calls.append((id, correlation))
        answers.append(out.copy())

    monkeypatch.setattr(s.source.provider, "correct", listen)
    everything(s, *data)
    return calls, answers


A, B = np.linspace(-9, 9, 24).reshape(4, 6), np.ones((4, 6))


def concrete(kind):
    for some in kind.__subclasses__():
        yield from concrete(some)
        if some.__module__.startswith("mpc."):
            yield some


def check_public(value, index=False):
    """Ids, shapes, names and places only; arrays as the numbers of an index alone."""
    if value is None or value is Ellipsis or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, slice):
        check_public((value.start, value.stop, value.step))
    elif isinstance(value, tuple):
        for item in value:
            check_public(item, index or value[0] == "index")
    elif isinstance(value, (Correlation, MaskRef, Part)):
        for name in value.__dataclass_fields__:
            check_public(getattr(value, name))
    else:
        assert index
        assert isinstance(value, np.ndarray)
        assert value.dtype.kind in "bi"


@pytest.mark.dealt
def test_the_provider_is_told_ids_and_shapes(fresh_session, monkeypatch):
    asked = set()
    with mpc.Session(fresh_session.parties, network=mpc.Network(1.0, 1000)) as far:
        for s in (fresh_session, far):
            calls, _ = told(s, monkeypatch, A, B)
            for id, correlation in calls:
                assert type(id) is int
                check_public(correlation)
            plan = s.plan(lambda p: everything(p, A, B))
            asked |= {type(c) for _, c in plan.correlations}
    # On a slow network there are products of sign bits, too.
    assert asked == set(concrete(Correlation))


@pytest.mark.dealt
def test_the_provider_is_told_the_same_whatever_the_data(fresh_session, monkeypatch):
    plan = fresh_session.plan(lambda p: everything(p, A, B))
    asked = [repr(entry) for entry in plan.correlations if entry[1].corrected_words]
    for data in ((A, B), (A * 0, B * 32767), (-A, B * UNIT)):
        with mpc.Session(fresh_session.parties) as s:
            calls, _ = told(s, monkeypatch, *data)
            assert [repr(call) for call in calls] == asked


def test_corrections_follow_from_the_keys_alone(monkeypatch):
    kept = []

    def listen(parties):
        kept.append(fresh_streams(parties))
        return kept[-1]

    monkeypatch.setattr("mpc.session_setup.fresh_streams", listen)
    with mpc.Session(("alice", "bob", "carol")) as s:
        calls, answers = told(s, monkeypatch, A, B)
    # Another provider with the same keys, asked backwards, gives the same.
    other = Provider(kept[0][1])
    for (id, correlation), answer in zip(calls[::-1], answers[::-1], strict=True):
        out = np.full(correlation.corrected_words, 7, np.uint64)
        other.correct(id, correlation, out)
        np.testing.assert_array_equal(out, answer)
    # Not so a provider with other keys.
    stranger = Provider(fresh_streams(3)[1])
    stranger.correct(*calls[0], out := np.empty_like(answers[0]))
    assert not (out == answers[0]).any()


def test_ids_are_never_used_twice(fresh_session, tap):
    with tap(fresh_session) as heard:
        for x in everything(fresh_session, A, B):
            x.reveal()
    used = [(party, source, id) for party, source, id, words in heard.filled if words.size]
    assert len(set(used)) == len(used)
    # A share and a mask never have the same id either.
    masks = {id for _, source, id in used if source == "masks"}
    assert not masks & {id for _, source, id in used if isinstance(source, int)}
    places = {id for _, source, id in used if source == "corrections"}
    assert len(places) == sum(source == "corrections" for _, source, _ in used)


def referred_to(correlation):
    for value in vars(correlation).values():
        if isinstance(value, MaskRef):
            yield value.id
        elif isinstance(value, Correlation):
            yield from referred_to(value)


@pytest.mark.dealt
def test_a_data_set_has_a_key_of_its_own(fresh_session, monkeypatch):
    """The keys that open a batch's correlations open no mask of another batch or data set."""
    s = fresh_session
    x = s.share(A, owner="alice")
    y = s.share(B, owner="bob") + x
    for data in (x, y):
        data.mask_data()
    (x[:2] * y[:2]).relu().reveal()
    assert x.mask.ref.id > OWN_IDS and y.mask.ref.id > OWN_IDS
    assert x.mask.ref.id != y.mask.ref.id
    calls = []
    monkeypatch.setattr(s.source.provider, "correct", lambda id, c, out: calls.append((id, c)))
    (x[2:] * y[2:]).shares  # noqa: B018
    (asked,) = calls
    assert set(referred_to(asked[1])) == {x.mask.ref.id, y.mask.ref.id}


@pytest.mark.parametrize("said", [OWN_IDS, OWN_IDS + 3, 2**64 - 1])
def test_no_party_moves_ids_to_those_of_masks_that_are_kept(said):
    """Otherwise a value to come would be opened under a mask of a model's weights."""
    with mpc.Session() as s:
        tell, last = s.tell, s.parties[-1]
        s.tell = lambda own, **how: [*tell(own, **how)[:-1], np.array([said], np.uint64)]
        wanted = f"below {OWN_IDS}" if s.watch is None else "up to 0"
        with pytest.raises(
            mpc.FrameError, match=f"^{last} must have used ids {wanted}, got {said}$"
        ):
            s.drop_prepared()
        with pytest.raises(mpc.SessionError, match="closed"):
            s.fresh_id()


def test_ids_end_before_those_of_masks_that_are_kept():
    with mpc.Session() as s:
        s.last_id = OWN_IDS - 2
        assert s.fresh_id() == OWN_IDS - 1
        for kept in (False, True):
            with pytest.raises(mpc.SessionError, match="used up"):
                s.fresh_id(kept)


def test_a_corrections_key_opens_no_mask():
    """With the correction keys of all blocks, and the mask keys of all others, a mask looks random."""
    masks, corrections = provider_streams(bytes(16))
    hidden = np.empty(2000, np.uint64)
    masks.fill(hidden, 5)
    seen = set()
    for id in (5, 5 + BLOCK_IDS, OWN_IDS + 5):
        stream, out = corrections.at(id), np.empty(2000, np.uint64)
        for place in (5 << 64, 0, stream.place(b"")):
            stream.fill(out, place)
            seen |= set(out.tolist())
        if id != 5:
            masks.at(id).fill(out, 5)
            seen |= set(out.tolist())
    assert not seen & set(hidden.tolist())


# Out of sight.


def texts_of(thing):
    return [repr(thing), str(thing), f"{thing}"]


def forms_of(word):
    word = int(word)
    return [str(word), f"{word:x}", f"{word:X}", str(word - 2**64)]


@pytest.mark.dealt
def test_nothing_secret_is_shown(fresh_session):
    s = fresh_session
    secret = np.array([12345.678, -23456.789])
    x, y = s.share(secret, owner="alice"), s.share(secret[::-1], owner="bob")
    product, bit = x * y, x < y
    shown = [
        s, x, y, product, bit, product.relu(), x.mask, x.plaintext, bit.bit, bit.bit.ref,
        product.shares.shape,
        *s.streams.values(), *(streams.masks for streams in s.streams.values()),
        *s.streams[0].pairs.values(), s.streams[0].corrections,
        s.source, s.source.provider, s.transport, s._ledger, s.cost(),
        s.plan(lambda p: everything(p, A, B)),
        x.plaintext.base,
    ]  # fmt: skip
    shown += [correlation for _, correlation in s.plan(lambda p: everything(p, A, B)).correlations]
    errors = []
    for refused in (
        lambda: np.asarray(x), lambda: bool(bit), lambda: float(x[0]), lambda: x + np.ones(5),
        lambda: x @ y @ y, lambda: x.with_bound(-1), lambda: x.reveal(to="mallory"), lambda: x[7],
        lambda: np.tan(x), lambda: np.add.reduce(x), lambda: (x - x - 1) ** 0.5,
        lambda: x**y, lambda: 1 / (x - x),
        lambda: x & y, lambda: pickle.dumps(x), lambda: x.reshape(3), lambda: hash(x),
        lambda: x.transpose(5), lambda: s.share(x, owner="alice"), lambda: mpc.Session().reveal(x),
    ):  # fmt: skip
        with pytest.raises((mpc.SottoError, TypeError)) as info:
            refused()
        errors.append(info.value)
    text = "\n".join(itertools.chain(*map(texts_of, shown + errors)))
    words = [*x.shares.ravel(), *product.shares.ravel(), *bit.shares.ravel(), *x.mask.delta.ravel()]
    words += [*x.mask.shares.ravel(), *x.plaintext.encoded.ravel()]
    for form in itertools.chain(*map(forms_of, words)):
        # A bit's delta or a small number may be any digit.
        if len(form) > 6:
            assert form not in text
    for digits in ("12345", "23456"):
        assert digits not in text


def test_keys_cannot_be_read_from_the_objects():
    with mpc.Session() as s:
        s.share([1.5, -2.0], owner="alice").relu().reveal()
        stack, seen = [s], []
        while stack:
            thing = stack.pop()
            if any(thing is other for other in seen):
                continue
            seen.append(thing)
            assert not isinstance(thing, (bytes, bytearray)) or not thing
            if isinstance(thing, (list, tuple)):
                stack.extend(thing)
            elif isinstance(thing, dict):
                stack.extend(thing.values())
            elif type(thing).__module__.split(".")[0] in ("mpc", "ring"):
                names = [n for c in type(thing).__mro__ for n in getattr(c, "__slots__", ())]
                slots = [getattr(thing, n) for n in names]
                stack.extend([*getattr(thing, "__dict__", {}).values(), *slots])
        assert any(isinstance(thing, ring.Stream) for thing in seen)
        assert any(isinstance(thing, NamedStream) for thing in seen)


@pytest.mark.dealt
def test_nothing_can_be_pickled_or_copied_out(session):
    x = session.share([1.0], owner="alice")
    for thing in (x, x * x, x < 0):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(mpc.RevealError, match="cannot be pickled"):
                pickle.dumps(thing, protocol)
        with pytest.raises(mpc.RevealError):
            copy.deepcopy(thing)
    for thing in (session.source, session.source.provider, session.streams[0]):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(mpc.SessionError, match="cannot be copied or pickled"):
            function(session)


def test_closing_drops_the_keys():
    s = mpc.Session()
    s.close()
    assert s.streams == {}
    assert s.source.provider is None
    assert repr(s).endswith("closed)")
