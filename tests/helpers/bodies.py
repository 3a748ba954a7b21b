"""Run test bodies that were written for a local session with one process for each party.

In every process ``mpc.Session`` is replaced by one that meets the other processes over TLS, and
pytest runs the same files. Keys are fixed, so that a local run opens the very same words.
"""

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

import mpc
from mpc.core.keys import party_streams
from mpc.core.watching import MALICIOUS, SEMI_HONEST
from mpc.transport.local import LocalTransport
from mpc.transport.remote import RemoteTransport
from mpc.transport.watched import RemoteWatched
from ring import FixedPoint

FORMAT = (("frac_bits", 16), ("int_bits", 15))
ROOT = Path(__file__).parents[2]


def fixed_key(session, one, nonce_of_one, other, nonce_of_other):
    """Stand in for mpc.parties.handshake.pair_key."""
    names = "|".join(sorted((one, other)))
    return hashlib.sha256(f"a key for tests: {names}".encode()).digest()[:16]


def fixed_local_streams(parties):
    """Stand in for mpc.core.keys.fresh_streams."""
    names = ("alice", "bob", "carol", "dave", "erin")[:parties]
    provider = [fixed_key(b"", "provider", b"", name, b"") for name in names]
    streams = [
        party_streams(
            provider[i],
            {j: fixed_key(b"", names[i], b"", names[j], b"") for j in range(parties) if j != i},
        )
        for i in range(parties)
    ]
    return streams, provider


def with_a_third(parties):
    """Return the parties of a session with a third one, who owns nothing, if these are two."""
    two = isinstance(parties, (tuple, list)) and len(parties) == 2
    return (*parties, "carol") if two else parties


def watch_everybody():
    """Have every session of this process be of parties that watch one another."""
    begin = mpc.Session.__init__

    @functools.wraps(begin)
    def watched(self, parties=("alice", "bob"), **options):
        if "security" not in options:
            parties, options = with_a_third(parties), {**options, "security": MALICIOUS}
        begin(self, parties, **options)

    mpc.Session.__init__ = watched


def name_of(test):
    """Return the name of a test's body, whatever its parameters: "test_relu::test_cost"."""
    file, body = test.split("::", 1)
    return f"{Path(file).stem}::{body.split('[')[0]}"


def _with_two(item):
    """Whether a body runs with two parties, and another time with three."""
    ids = item.callspec._idlist if hasattr(item, "callspec") else ()
    return not {"two", "2 parties"}.isdisjoint(ids) and "pair" not in item.fixturenames


class Witness:
    """A pytest plugin that keeps, for each test, its outcome and a digest of what it has opened.

    `share`: of each `share[0]` bodies the one at `share[1]` runs, with one of its parameters; or None for
    all. `without` names bodies that do not run, `only` those that run alone: "test_relu::test_cost".
    """

    def __init__(self, share, provider=True, security=SEMI_HONEST, without=(), only=()):
        self.found = {}
        self.share, self.provider, self.security = share, provider, security
        self.without, self.only = frozenset(without), frozenset(only)
        self.digest = hashlib.sha256()

    def note(self, arrays):
        for array in arrays:
            if not len(array):
                continue  # a plan
            self.digest.update(repr(array.shape).encode() + array.tobytes())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.digest = hashlib.sha256()
        return (yield)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            text = "" if report.passed else str(report.longrepr)[-2000:]
            self.found[report.nodeid] = [report.outcome, text]

    def pytest_runtest_logfinish(self, nodeid):
        if nodeid in self.found:
            self.found[nodeid].append(self.digest.hexdigest())

    def pytest_configure(self, config):
        import hypothesis

        hypothesis.settings.register_profile(
            "same", derandomize=True, database=None, deadline=None, max_examples=20
        )
        hypothesis.settings.load_profile("same")

    @pytest.hookimpl(trylast=True)  # after -k
    def pytest_collection_modifyitems(self, items):
        # A tap sees what all parties deal and send: there is no such place here.
        items[:] = [item for item in items if "tap" not in item.fixturenames]
        if not self.provider:
            items[:] = [item for item in items if "[alone" in item.nodeid]
        if self.security == MALICIOUS:
            items[:] = [item for item in items if not _with_two(item)]
        items[:] = [item for item in items if name_of(item.nodeid) not in self.without]
        if self.only:
            items[:] = [item for item in items if name_of(item.nodeid) in self.only]
        bodies = {}
        for item in items:
            bodies.setdefault((item.path, item.originalname), []).append(item)
        if self.share is not None:
            every, first = self.share
            groups = list(bodies.values())[first::every]
            items[:] = [group[len(group) // 2] for group in groups]
        # What Hypothesis tries depends on the modules that are loaded, which differ from a local run.
        self.generated = {
            item.nodeid for item in items if getattr(item.obj, "is_hypothesis_test", False)
        }
        # So they go last in a file: the tests of a file share a session, and its ids.
        places = {path: n for n, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: (places[item.path], item.nodeid in self.generated))

    def listen(self, transport):
        """Have every opening of a transport's class go through `note`."""
        deliver = transport.open

        def listening(this, messages):
            opened = deliver(this, messages)
            self.note(opened)
            return opened

        transport.open = listening
        if transport is RemoteWatched:
            # Where all parties live in one process these are openings.
            give, tell = transport.give, transport.tell

            def giving(this, owner, words):
                self.note([given := give(this, owner, words)])
                return given

            def telling(this, words):
                self.note(told := tell(this, words))
                return told

            transport.give, transport.tell = giving, telling
        if transport is LocalTransport:
            # Only one party sees what is revealed to one.
            transport.open_to = lambda this, _, shares, opening: deliver(this, [(shares, opening)])[
                0
            ]


def _run(arguments, witness):
    os.chdir(ROOT)
    code = pytest.main(
        [
            *arguments,
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--no-header",
            *(["--maxfail=50"] if witness.security == SEMI_HONEST else []),
        ],
        plugins=[witness],
    )
    return int(code), witness.found, witness.generated


@dataclass(frozen=True)
class Processes:
    """Run pytest in each party's process, and there the bodies that a :class:`Witness` chooses."""

    arguments: tuple
    parties: tuple
    share: tuple | None
    provider: bool = True
    security: str = SEMI_HONEST
    without: tuple = ()

    def __call__(self, place):
        import mpc.parties.joining
        import mpc.provider.meetings

        mpc.parties.joining.pair_key = mpc.provider.meetings.pair_key = fixed_key
        if place.me == "provider":
            return place.provide()
        witness = Witness(self.share, self.provider, self.security, self.without)
        witness.listen(RemoteTransport if self.security == SEMI_HONEST else RemoteWatched)

        def session(parties=("alice", "bob"), **options):
            provider = options.pop("provider", "crypto") is not None
            if options.pop("network", None) is not None:
                pytest.skip("a network is stated in parties.toml, for all sessions")
            if self.security == MALICIOUS:
                parties = with_a_third(parties)
            if tuple(parties) != self.parties or provider != self.provider:
                pytest.skip("needs other parties than were launched")
            form = [options.pop(name, default) for name, default in FORMAT]
            options["format"] = FixedPoint(*form)
            return place.session(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0], **options)

        mpc.Session = session
        return _run(self.arguments, witness)


@dataclass(frozen=True)
class Local:
    """Run pytest with local sessions, in a process of its own, with `fixed` keys to compare with."""

    arguments: tuple
    share: tuple | None
    security: str = SEMI_HONEST
    fixed: bool = True
    without: tuple = ()
    only: tuple = ()

    def __call__(self):
        if self.fixed:
            mpc.session_setup.fresh_streams = fixed_local_streams
        if self.security == MALICIOUS:
            watch_everybody()
        witness = Witness(self.share, security=self.security, without=self.without, only=self.only)
        witness.listen(LocalTransport)
        return _run(self.arguments, witness)
