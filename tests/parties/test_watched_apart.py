"""Three watched parties in processes of their own: honest runs, cheats, the provider, and refusals."""

import socket
import tempfile
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

import mpc
import nn
from mpc.array.shared_array import SharedArray
from mpc.command.self_test import CHECKS
from mpc.core import wire
from mpc.core.cost import Ledger
from mpc.core.errors import ABORTED, PeerTimeoutError
from mpc.core.frames import Kind
from mpc.core.watching import role_streams
from mpc.launch import HELPERS, start
from mpc.parties import configuration
from mpc.parties.configuration import write_example
from mpc.parties.handshake import client_terms, disagreement, terms
from mpc.parties.health import ask, table
from mpc.protocols.truncation import TruncationPair
from mpc.provider.service import ProviderService
from mpc.provider.watched import WatchedSource
from ring import fresh_key

NAMES = ("alice", "bob", "carol")
MORE = (*NAMES, "dave")
X = np.random.default_rng(0).random((4, 6))
_DRAWN = np.random.default_rng(3)
MODEL = nn.MLP.from_parameters(
    [_DRAWN.normal(0, 1, shape) for shape in ((6, 5), (5,), (5, 3), (3,))]
)
SOME = CHECKS[::5]


def small(session):
    secret = MODEL.share(session, owner="alice")
    rows = secret.share_rows(X, owner="bob")
    return secret(rows).argmax(axis=1).reveal()


def kept(session):
    """Return whether what is saved, and what a checkpoint has, comes back: in a folder of each process."""
    with tempfile.TemporaryDirectory() as folder:
        nn.save_shares(MODEL.share(session, owner="alice"), folder)
        secret = nn.load_shares(session, folder)
        right = np.array_equal(secret.predict(secret.share_rows(X, owner="bob")), MODEL.predict(X))
        rows = session.share(X, owner="bob")
        targets = session.share(nn.one_hot(np.arange(4) % 3), owner="carol")

        def trained(**how):
            model = nn.MLP((6, 3), random_state=0)
            model = model.fit(rows, targets, epochs=1, batch_size=4, checkpoint=folder, **how)
            return model.reveal().layers[0].weights

        # Rounded anew when they are revealed.
        return right and np.allclose(trained(), trained(resume=True), atol=1e-3)


def again_and_again(session):
    """Predict again and again; return whether all is right, and how many of the last requests differ."""
    secret, pieces, right = MODEL.share(session, owner="alice"), [], True
    asks(session, lambda number, frame: [pieces.append(wire.decode(frame)[1]), frame][1:])

    def rows_of(x):
        return secret.share_rows(x if session.me == "bob" else None, "bob", rows=4)

    for count in range(1, 13):
        right &= np.array_equal(secret.predict(rows_of(X / count)), MODEL.predict(X / count))
    different = len(set(pieces[-6:]))
    # Of rows that were shared just before, and then long before, requests count in other ways.
    rows = rows_of(X)
    product = rows * 0.5 @ np.eye(6)
    for _ in range(8):
        right &= np.array_equal(secret.predict(rows), MODEL.predict(X))
        right &= np.array_equal(secret.predict(product), MODEL.predict(X / 2))
    return right, different


def honest(session):
    """Return what is right, and how many bytes were sent beyond those that the session has counted."""
    found = []
    for check in SOME:
        value = check.run(*check.make(session))
        value = value.reveal() if isinstance(value, SharedArray) else value
        error = np.abs(np.asarray(value, float) - check.expected).max()
        found.append((check.name, bool(error <= check.tolerance)))
    before = session.bytes_on_the_wire[0], session.cost()
    labels = small(session)
    cost = session.cost() - before[1]
    sent = session.bytes_on_the_wire[0] - before[0]
    mine = session.parties.index(session.me)
    one = session.share([1.0, -2.0], owner="bob").relu().reveal(to="carol")
    uncounted = sent - cost.wire_bytes[mine]
    again = again_and_again(session)
    return found, labels, one, session.security, repr(session), uncounted, again, kept(session)


@pytest.mark.parametrize("names", [NAMES, MORE], ids=len)
def test_honest_parties_in_processes_are_right(names, tmp_path):
    """More of them have an auditor, who computes everything again, and accuses nobody."""
    audited = {"auditor": True, "audit_rate": 1.0, "audit_signed": True, "evidence": tmp_path}
    for name, (found, labels, one, security, text, uncounted, again, same) in mpc.launch(
        honest, names, security="malicious", timeout=240, **(audited if names == MORE else {})
    ).items():
        assert all(right for _, right in found), (name, found)
        assert np.array_equal(labels, MODEL.predict(X))
        assert (one is None) == (name != "carol")
        watched = "security='malicious'"
        if names == MORE:
            watched += ", auditor='auditor' (rate 1, signed)"
        assert security == "malicious" and watched in text
        assert uncounted == 0, name
        # New rows each time: the same plan, and the same requests but for where they begin.
        assert again == (True, 1), name
        assert same, name
    assert not list(tmp_path.glob("*.audit"))


def test_a_program_that_is_prepared_asks_ahead():
    found = mpc.launch(small, NAMES, security="malicious", prepare=True, timeout=120)
    assert all(np.array_equal(each, MODEL.predict(X)) for each in found.values())


def flips(session, number, kind=Kind.OPEN):
    """Change the top bit of one word of the message `number` of a kind."""
    transport, count = session.transport, [0]
    deliver = transport._exchange

    def cheating(sort, sent, wanted):
        if sort is kind and sent:
            count[0] += 1
            if count[0] == number:
                sent = {q: [np.array(each) for each in arrays] for q, arrays in sent.items()}
                next(iter(sent.values()))[0].reshape(-1)[:1] ^= np.uint64(1 << 63)
        return deliver(sort, sent, wanted)

    transport._exchange = cheating


def asks(session, forge):
    """Send the provider other requests: `forge(number, frame)` gives those in place of one."""
    link, count = session.source.connection, [0]
    post = link.post_bytes

    def cheating(kind, data, step=0):
        frames = [data]
        if kind is Kind.REQUEST:
            frames = forge(count[0], data)
            count[0] += 1
        for each in frames:
            post(kind, each, step)

    link.post_bytes = cheating


def later(number, frame):
    base, piece = wire.decode(frame)
    return [wire.encode((base + (number == 1), piece))]


CHEATS = {
    "an input": lambda s: flips(s, 1),
    "an opening": lambda s: flips(s, 5),
    "a check": lambda s: flips(s, 1, Kind.CHECK),
    "the last check": lambda s: flips(s, 2, Kind.CHECK),
    "a request for another id": lambda s: asks(s, later),
    "a request sent twice": lambda s: asks(s, lambda k, f: [f, f] if k == 0 else [f]),
    "a request that is malformed": lambda s: asks(s, lambda k, f: [b"x"] if k == 1 else [f]),
    "a request of its own": lambda s: asks(s, lambda k, f: [f, b"x"] if k == 0 else [f]),
}


@dataclass(frozen=True)
class Cheating:
    """In each process: a session for every cheat at every party, and what came of it."""

    cheaters: tuple[str, ...] = (*NAMES, "nobody", "all")
    cheats: tuple[str, ...] = tuple(CHEATS)

    def __call__(self, place):
        if place.me in HELPERS:
            return place.provide()
        found = {}
        for cheater in self.cheaters:
            for name, cheat in ((each, CHEATS[each]) for each in self.cheats):
                if cheater == "nobody" and name != "an input":
                    continue
                if cheater == "all" and name != "a request sent twice":
                    continue
                try:
                    with place.session("cheats") as session:
                        if cheater in (place.me, "all"):
                            cheat(session)
                        found[cheater, name] = small(session)
                except mpc.PeerError as error:
                    found[cheater, name] = (type(error).__name__, str(error))
        return found


FOUR = Cheating(
    ("alice", "dave", "nobody"),
    ("an input", "an opening", "the last check", "a request sent twice"),
)


@pytest.mark.parametrize(("names", "run"), [(NAMES, Cheating()), (MORE, FOUR)], ids=["3", "4"])
def test_cheats_are_caught_in_processes(names, run):
    found = start(lambda _: run, names, timeout=200, answer_timeout=20, security="malicious")
    right, stopped = MODEL.predict(X), 0
    assert len(set(right)) > 1
    for name, outcomes in found.items():
        for (cheater, cheat), outcome in outcomes.items():
            where = (name, cheater, cheat, outcome)
            if cheater == "nobody":
                assert np.array_equal(outcome, right), where
            elif name != cheater:
                if "check" in cheat and isinstance(outcome, np.ndarray):
                    # The one that was told the truth in the last check.
                    assert cheat == "the last check" and np.array_equal(outcome, right), where
                    continue
                assert isinstance(outcome, tuple) and outcome == ("AbortError", ABORTED), where
                stopped += 1
    cheaters = len(set(run.cheaters) & set(names))
    assert stopped >= (len(names) - 1) * cheaters * len(run.cheats) - 3 * (len(names) - 2)


def test_who_disagrees_on_security_is_told_so_in_the_handshake(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ports = [1, 2, 3, sock.getsockname()[1]]
        path = write_example(tmp_path / "c", NAMES, (), ports=ports, security="malicious")
        watched = configuration.load(path)
        other = terms(replace(watched, security="semi-honest"), "a program")
        service = ProviderService(watched, sock=sock.dup())
        try:
            found = [
                disagreement("alice", other, "bob", terms(watched, "a program")),
                disagreement("provider", service.terms(), "alice", other),
            ]
            assert not disagreement("provider", service.terms(), "bob", terms(watched, "a program"))
        finally:
            service.close(0.1)
    for text in found:
        assert "disagree on security" in text and "malicious" in text and "semi-honest" in text


def many_requests(session):
    """Use correlations that take more bytes to ask for than a small socket holds."""
    x = session.share(X.reshape(-1), owner="bob", bound=1)
    y = session.share(X.reshape(-1), owner="alice", bound=1)
    total = 0
    for first in range(60):
        rows = (np.arange(384) + first) % X.size
        total = total + (x[rows] * y[rows]).sum()
    return total.reveal()


@dataclass(frozen=True)
class Preparing:
    """In each session one party's requests do not go out at once."""

    def __call__(self, place):
        if place.me in HELPERS:
            return place.provide()
        found = []
        for slow in NAMES:
            with place.session("slow") as session:
                link = session.source.connection
                with pytest.MonkeyPatch.context() as patch:
                    if place.me == slow:
                        patch.setattr(type(link), "push", lambda _: None)
                    session.prepare(many_requests)
                found.append((bool(link.outgoing_bytes), float(many_requests(session))))
        return found


def test_requests_that_one_party_cannot_send_at_once_go_out_while_it_waits():
    found = start(
        lambda _: Preparing(), NAMES, timeout=120, answer_timeout=20, security="malicious"
    )
    right = 384 * np.mean(X**2) * 60
    for each in found.values():
        assert all(abs(total - right) < 1 for _, total in each), (each, right)
    assert all(found[name][k][0] for k, name in enumerate(NAMES)), "all was sent at once"


def test_that_one_party_asks_the_provider_for_nothing_is_not_the_providers_fault(monkeypatch):
    def silent(*_):
        raise PeerTimeoutError("provider did not answer within 60 s")

    monkeypatch.setattr("mpc.provider.remote.exchange", silent)
    nothing = dict.fromkeys(("post_bytes", "push", "expect_arrays"), lambda *_: None)
    streams = {role: role_streams(fresh_key(), 3) for role in (1, 2)}
    source = WatchedSource(streams, SimpleNamespace(**nothing), 60.0, Ledger(3), 3)
    wanted = TruncationPair(4, 16)
    source.masks(1, wanted)
    text = "^provider did not answer within 60 s .*: it deals what all parties ask .* one of them may not"
    with pytest.raises(PeerTimeoutError, match=text):
        source.corrected(1, wanted)


def test_health_of_the_provider_says_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ports = [1, 2, 3, sock.getsockname()[1]]
        path = write_example(tmp_path / "c", NAMES, (), ports=ports, security="malicious")
        service = ProviderService(configuration.load(path), sock=sock.dup())
        try:
            (found,) = ask(configuration.load(path), "provider", of="provider")
        finally:
            service.close(0.1)
    assert found.told["security"] == "malicious"
    assert "security malicious" in "\n".join(table([found]))


# parties.toml.


def written(folder, line, **options):
    path = write_example(folder, NAMES, (), **options)
    path.write_text(path.read_text().replace("[format]", f"{line}\n\n[format]", 1))
    return path


def test_the_configuration_says_it_and_the_default_does_not(tmp_path):
    assert configuration.load(write_example(tmp_path / "a", NAMES, ())).security == "semi-honest"
    path = write_example(tmp_path / "b", NAMES, (), security="malicious")
    assert configuration.load(path).security == "malicious"
    assert 'security = "malicious"' in path.read_text()
    with pytest.raises(mpc.ArgumentError, match=r"security = 'malicious', got 'semi-honest'"):
        mpc.Session(path, me="alice", security="semi-honest")


def test_another_security_is_refused_with_its_line(tmp_path):
    path = written(tmp_path / "c", 'security = "covert"')
    match = r'line \d+: .*security must be "semi-honest" or "malicious"'
    with pytest.raises(mpc.ConfigurationError, match=match):
        configuration.load(path)


def test_two_parties_are_refused(tmp_path):
    names = NAMES[:2]
    path = write_example(tmp_path / "c", names, ())
    path.write_text(path.read_text().replace("[format]", 'security = "malicious"\n[format]', 1))
    with pytest.raises(mpc.ConfigurationError, match="third one need not own any data"):
        configuration.load(path)
    with pytest.raises(mpc.PartyError, match="third one need not own any data"):
        mpc.launch(small, names, security="malicious")


def test_two_parties_alone_are_refused(tmp_path):
    path = write_example(tmp_path / "c", ("alice", "bob"), (), provider=False)
    path.write_text(path.read_text().replace("[format]", 'security = "malicious"\n[format]', 1))
    with pytest.raises(mpc.ConfigurationError, match="needs a crypto provider"):
        configuration.load(path)
    with pytest.raises(mpc.ArgumentError, match="needs a crypto provider"):
        mpc.launch(small, NAMES, provider=None, security="malicious")
    with pytest.raises(mpc.ArgumentError, match="security must be one of"):
        mpc.launch(small, NAMES, security="covert")


def test_a_client_that_says_another_security_is_told_so(tmp_path):
    path = write_example(tmp_path / "c", NAMES, ("dora",), security="malicious")
    read = configuration.load(path)
    mine, other = client_terms(read), client_terms(replace(read, security="semi-honest"))
    assert not disagreement("alice", mine, "dora", mine)
    told = disagreement("alice", mine, "dora", other)
    assert "disagree on security: alice has 'malicious', dora has 'semi-honest'" in told
