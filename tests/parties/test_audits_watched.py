"""An auditor beside parties that watch one another: one of them may lie to it, too."""

import threading
import time
from types import SimpleNamespace

import joblib
import numpy as np
import pytest

import mpc
import mpc.provider.watched
import nn
from mpc.core import events
from mpc.core.cost import Ledger
from mpc.core.errors import AuditError
from mpc.core.watching import role_streams
from mpc.parties import joining
from mpc.protocols.truncation import TruncationPair
from mpc.provider import announced, auditor, service, signed
from mpc.provider.audit_link import WatchedLink
from mpc.provider.evidence import load_evidence
from mpc.provider.watched import WatchedSource
from mpc.transport.remote import verdict
from nn.command import main
from nn.serving.service import PartyService
from ring import fresh_key
from tests.helpers import audit_trials
from tests.helpers.audit_trials import VALUES, give, trials_in, two_steps
from tests.helpers.programs import Cheat

NAMES = ("alice", "bob", "carol")
MORE = (*NAMES, "dave", "erin")
RIGHT = np.maximum(VALUES * VALUES, 0)
# No run of these tests draws a coin that falls.
NEVER = 1e-12


@pytest.fixture
def start(tmp_path):
    def watched(*arguments, parties=NAMES, **options):
        return make(parties, *arguments, security="malicious", **options)

    trials = trials_in(tmp_path)
    make = next(trials)
    yield watched
    next(trials, None)


@pytest.fixture
def cheats(monkeypatch):
    """The provider deals every correction wrongly, the same to both who get it."""
    monkeypatch.setattr(mpc.provider.watched, "Provider", Cheat)


def many_steps(session):
    """Openings to one party alone, a program that is prepared, and one that is not."""

    def run(s):
        x, y = (give(s, VALUES, name) for name in (s.parties[0], s.parties[-1]))
        z = (x * y).relu() + (x < y) * x
        (z.reshape(4, 6) @ y.reshape(6, 4)).argmax(axis=1, one_hot=True).reveal(to=s.parties[0])
        return z.sum().reveal()

    session.prepare(run)
    return run(session), run(session)


def accuses_nobody(trial, found, honest=NAMES):
    """Check that the honest parties have no result, and that nobody says that the provider has cheated."""
    for name in honest:
        error = found[name]
        assert isinstance(error, mpc.PeerError) and not isinstance(error, AuditError), (name, error)
    assert trial.auditor.counted("wrong") == 0
    assert not list(trial.folder.glob("*.audit"))


def said(found):
    return " | ".join(str(each) for each in found.values())


@pytest.mark.parametrize(("parties", "signed"), [(NAMES, False), (NAMES, True), (MORE, True)])
def test_honest_parties_are_right_and_everything_is_audited(start, parties, signed):
    trial = start(parties=parties, signed=signed)
    found = trial.run(lambda session: (many_steps(session), repr(session)))
    with mpc.Session(parties) as s:
        expected = many_steps(s)
    for results, text in found.values():
        assert results == pytest.approx(expected, abs=1e-2)
        assert "security='malicious', auditor='auditor' (rate 1" in text
    health = trial.auditor.health()
    assert health["parts"] == health["audited"] >= 4 and health["wrong"] == 0
    assert health["security"] == "malicious"
    assert not list(trial.folder.glob("*.audit"))


@pytest.mark.parametrize("parties", [NAMES, MORE], ids=len)
def test_the_same_wrong_correction_to_both_is_found(start, cheats, parties, capsys):
    trial = start(parties=parties, signed=True)
    for error in trial.run(two_steps).values():
        assert type(error) is AuditError
        assert "provider has dealt wrongly for ids" in str(error) and "(blocks 0 to 0)" in str(
            error
        )
    assert trial.auditor.counted("wrong") == 1
    (path,) = trial.folder.glob("*.audit")
    assert main(["audit", "verify", str(path), str(trial.read.path)]) == 0
    found = load_evidence(path)
    assert found.problems([found.provider], [found.auditor]) == []


def test_the_same_wrong_correction_to_both_is_not_found_by_the_parties(start, cheats):
    """The control: what nobody looks at makes results wrong, and the parties agree on them."""
    trial = start(rate=NEVER)
    found = trial.run(two_steps)
    assert all(np.abs(each - RIGHT).max() > 1 for each in found.values())
    assert trial.auditor.counted("parts") >= 1 and trial.auditor.counted("audited") == 0


class Unequal(service._WatchedDealing):
    """Deals one of the two who get corrections other ones; the same requests are answered."""

    def _post(self, link, correction, id, signature):
        if link.peer == NAMES[1]:
            correction = correction ^ np.uint64(1 << 20)
        super()._post(link, correction, id, signature)


def test_different_corrections_are_found_whatever_is_drawn(start, monkeypatch):
    """Else whether a session ends would depend on secrets, of which the entry of a table is one."""
    monkeypatch.setattr(service, "_WatchedDealing", Unequal)
    trial = start(rate=NEVER)
    found = trial.run(two_steps)
    accuses_nobody(trial, found)
    assert "bob and carol have told auditor of different corrections" in said(found)
    assert trial.auditor.counted("parts") == 0


def test_what_is_signed_must_be_what_is_dealt_to_both(start, monkeypatch):
    monkeypatch.setattr(service, "_WatchedDealing", Unequal)
    trial = start(signed=True)
    found = trial.run(two_steps)
    accuses_nobody(trial, found)
    assert "a signature that is not its own, or of something else than it has sent" in said(found)


def test_a_provider_that_signs_other_keys_of_a_role_without_corrections(start, monkeypatch):
    """Alice gets no corrections: she is shown what was signed of the keys of both her roles."""
    dealt = signed.ProviderSignatures.dealt

    def lying(self, words):
        mine = self._streams[1]
        self._streams = [(mine[0], mine[1]), *self._streams[1:]]
        return dealt(self, words)

    monkeypatch.setattr(signed.ProviderSignatures, "dealt", lying)
    # Of those who get corrections only carol has the key of alice's role; she does not look here.
    compare = WatchedLink._compare

    def careless(self, hashes, *blocks):
        if number_of(self) != 2:
            compare(self, hashes, *blocks)

    monkeypatch.setattr(WatchedLink, "_compare", careless)
    trial = start(signed=True, rate=NEVER)
    found = trial.run(two_steps)
    accuses_nobody(trial, found, ("alice", "bob"))
    assert "provider sent a signature of other keys" in str(found["alice"])


@pytest.mark.parametrize("which", ["its watcher's", "an owner's"])
def test_other_keys_for_one_of_a_role_are_found_before_a_session(start, monkeypatch, which):
    """No correction would be wrong: an input would be another one, and no party could tell."""
    deal = mpc.provider.watched.keys_for

    def other(keys, party):
        given = bytearray(deal(keys, party))
        if party == 0:
            given[0 if which == "its watcher's" else -1] ^= 1
        return bytes(given)

    monkeypatch.setattr(service, "keys_for", other)
    trial = start(rate=NEVER)
    found = trial.run(two_steps)
    accuses_nobody(trial, found)
    assert "have different keys of one role's inputs" in said(found)
    monkeypatch.setattr(auditor, "compare_inputs", lambda said: None)
    found = trial.run(two_steps)
    if which == "an owner's":
        assert all(np.abs(each - RIGHT).max() > 1 for each in found.values())
    else:
        accuses_nobody(trial, found)


def test_who_says_nothing_of_its_input_keys_is_not_the_auditors_fault(start, monkeypatch):
    keys_from = joining.Joining._keys_from

    def late(self, member, count):
        if member.name == "auditor":
            raise mpc.PeerTimeoutError("auditor did not answer within 40 s")
        return keys_from(self, member, count)

    monkeypatch.setattr(joining.Joining, "_keys_from", late)
    trial = start()
    found = trial.run(two_steps)
    accuses_nobody(trial, found)
    assert "auditor did not answer within 40 s: it answers when all parties have told it" in said(
        found
    )


def number_of(link):
    return next(iter(link._streams))


class Lies:
    """Ways to lie to the auditor, of the party with a number."""

    def __init__(self, monkeypatch, party):
        self.patch, self.party = monkeypatch, party

    def _changes(self, what, change):
        """Have the party send other messages of a kind, or none where `change` gives None."""
        post, party = WatchedLink._post, self.party

        def lying(link, message):
            if number_of(link) == party and message[0] == what:
                message = change(message)
            if message is not None:
                post(link, message)

        self.patch.setattr(WatchedLink, "_post", lying)

    def other_requests(self):
        self._changes("part", lambda m: (*m[:1], m[1][:-1] + bytes([m[1][-1] ^ 1]), *m[2:]))

    def another_id(self):
        self._changes("part", lambda m: (*m[:2], m[2] + 1, *m[3:]))

    def other_tags(self):
        self._changes("part", lambda m: (*m[:3], bytes(16), *m[4:]))

    def no_part(self):
        self._changes("part", lambda m: None)

    def no_keys(self):
        self._changes("keys", lambda m: None)

    def own_keys(self):
        self._changes("keys", lambda m: (m[0], bytes(len(m[1])), *m[2:]))

    def keys_of_the_next(self):
        self._changes("keys", lambda m: (*m[:3], bytes(len(m[3])), *m[4:]))

    def fewer_keys(self):
        self._changes("keys", lambda m: (*m[:3], m[3][:-16], *m[4:]))

    def junk(self):
        self._changes("part", lambda m: ("part",))

    def other_inputs(self):
        compare, party = announced.compare_inputs, self.party

        def lied(said):
            name = NAMES[party]
            compare({**said, name: bytes([said[name][0] ^ 1]) + said[name][1:]})

        self.patch.setattr(auditor, "compare_inputs", lied)

    def another_digest(self):
        self._changes("part", lambda m: (*m[:5], bytes(32), *m[6:]))

    def other_hashes(self):
        self._changes("part", lambda m: (*m[:4], bytes(len(m[4])), *m[5:]))


LIES = (
    "other_requests", "another_id", "other_tags", "no_part", "no_keys", "own_keys", "keys_of_the_next",
    "fewer_keys", "junk", "other_inputs",
)  # fmt: skip
SIGNED_LIES = ("another_digest", "other_hashes", "own_keys", "keys_of_the_next")


@pytest.mark.parametrize("party", [0, 1, 2], ids=NAMES)
@pytest.mark.parametrize("lie", LIES)
def test_a_party_that_lies_ends_the_session_and_accuses_nobody(start, monkeypatch, lie, party):
    """Whether the provider deals as agreed or not: what is wrong is not used, either."""
    silent = lie.startswith("no_")
    trial = start(answer=0.5 if silent else 20.0)
    getattr(Lies(monkeypatch, party), lie)()
    honest = [name for k, name in enumerate(NAMES) if k != party]
    if not silent:  # once is enough to wait
        accuses_nobody(trial, trial.run(two_steps), honest)
    monkeypatch.setattr(mpc.provider.watched, "Provider", Cheat)
    accuses_nobody(trial, trial.run(two_steps), honest)


@pytest.mark.parametrize("party", [1, 2], ids=NAMES[1:])
@pytest.mark.parametrize("lie", SIGNED_LIES)
def test_a_party_that_lies_of_what_is_signed_accuses_nobody(start, monkeypatch, lie, party):
    trial = start(signed=True)
    getattr(Lies(monkeypatch, party), lie)()
    accuses_nobody(trial, trial.run(two_steps), [n for k, n in enumerate(NAMES) if k != party])


@pytest.mark.parametrize("party", [1, 2], ids=NAMES[1:])
def test_one_party_cannot_shield_the_provider_by_a_signature_of_its_own(
    start, monkeypatch, cheats, party
):
    """Two have got the provider's signature, and one of them is honest."""
    Lies(monkeypatch, party)._changes("part", lambda m: (*m[:6], bytes(8)) if len(m) > 4 else m)
    trial = start(signed=True)
    assert {type(error) for error in trial.run(two_steps).values()} == {AuditError}
    (path,) = trial.folder.glob("*.audit")
    assert main(["audit", "verify", str(path), str(trial.read.path)]) == 0


def test_nothing_is_used_before_it_is_cleared(start, monkeypatch):
    monkeypatch.setattr(auditor._Auditing, "_clear", lambda self: None)
    trial = start(answer=0.5)
    found = trial.run(two_steps)
    accuses_nobody(trial, found)
    assert "auditor clears what all parties have told it of" in said(found)


def test_keys_are_opened_for_the_next_part_alone(start, monkeypatch):
    """An auditor that asks for others, or before a party has asked for the part, gets none."""
    run = auditor._Auditing.run

    def curious(self):
        for name in self._names:
            self._send(name, ("open", b"", (0,), (0,), (), (0,), ()))
        run(self)

    monkeypatch.setattr(auditor._Auditing, "run", curious)
    found = start().run(two_steps)
    assert any(isinstance(each, mpc.FrameError) for each in found.values())
    assert "asked for keys of blocks that are not those of the next part" in said(found)


def test_an_auditor_that_names_blocks_that_are_none_is_refused(start, monkeypatch):
    run = auditor._Auditing.run

    def strange(self):
        self._send("alice", ("signed", (9 << 50,), (), (), (), bytes(32)))
        run(self)

    monkeypatch.setattr(auditor._Auditing, "run", strange)
    found = start(rate=NEVER).run(two_steps)
    assert isinstance(found["alice"], mpc.FrameError)
    assert "auditor named blocks that are none" in str(found["alice"])


def test_an_end_tells_the_provider_nothing(start, monkeypatch):
    logged = []
    monkeypatch.setattr(
        events, "_hearers", [lambda event, _, fields: logged.append((event, dict(fields)))]
    )

    def fails(session):
        two_steps(session)
        raise ValueError("one of 17 rows is too large")

    trial = start()
    assert all(isinstance(error, Exception) for error in trial.run(fails).values())
    trial.close()
    problems = [f["problem"] for e, f in logged if e == "session" and "me" not in f]
    assert problems == ["-", "-"]


def test_a_lost_auditor_ends_the_session(start):
    trial = start()

    def program(session):
        two_steps(session)
        trial.auditor.close(0.0)
        return two_steps(session)

    accuses_nobody(trial, trial.run(program))


@pytest.mark.parametrize("way", ["an opening", "a correction", "the auditor"])
def test_a_provider_that_is_gone_does_not_keep_a_verdict_from_being_heard(monkeypatch, way):
    def gone(*_):
        raise mpc.PeerClosedError("provider closed the connection")

    def caught(*_):
        raise AuditError("provider has dealt wrongly")

    monkeypatch.setattr("mpc.provider.remote.exchange", gone)
    nothing = dict.fromkeys(("post_bytes", "push", "expect_arrays"), lambda *_: None)
    link = SimpleNamespace(**nothing, advance=gone)
    audit = SimpleNamespace(
        advance=caught, wait=gone, bound=9, awaits_signature=False, requested=lambda part: None
    )
    streams = {role: role_streams(fresh_key(), 3) for role in (1, 2)}
    source = WatchedSource(streams, link, 60.0, Ledger(3), 3, audit)
    source.masks(1, TruncationPair(4, 16))
    if way == "an opening":
        assert type(verdict(mpc.PeerError("alice stopped"), source)) is AuditError
        return
    with pytest.raises(AuditError, match="provider has dealt wrongly"):
        {
            "a correction": lambda: source.corrected(1, TruncationPair(4, 16)),
            "the auditor": lambda: source._wait_for_audit(audit, 1),
        }[way]()


def test_a_provider_with_workers_deals_the_masks_of_inputs(start, monkeypatch):
    def with_workers(*arguments, **options):
        with joblib.parallel_config("threading"):
            return service.ProviderService(*arguments, workers=2, **options)

    monkeypatch.setattr(audit_trials, "ProviderService", with_workers)
    for each in start().run(two_steps).values():
        assert np.abs(each - RIGHT).max() < 1e-3


def until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_services_have_both_and_give_a_cheat_no_other_try(start, tmp_path, monkeypatch):
    trial = start()
    network = nn.MLP.from_parameters([np.eye(2), np.ones(2), np.eye(2) - 0.5, np.zeros(2)])
    with mpc.Session(NAMES, security="malicious") as session:
        shared = network.share(session, owner="alice", low=-1, high=1, scores=True)
        nn.save_shares(shared, tmp_path / "model")
    services = [
        PartyService(trial.read, me, {"net": tmp_path / "model"}, sock=trial.sockets[me].dup())
        for me in NAMES
    ]
    threads = [threading.Thread(target=each.run, daemon=True) for each in services]
    for thread in threads:
        thread.start()
    rows = np.array([[1.0, 0.5], [-1.0, 1.0]])
    try:
        until(lambda: not any(each.state for each in services))
        with nn.Client(trial.read.path, model="net") as client:
            scores = client.decision_function(rows)
        assert np.abs(scores - network.decision_function(rows)).max() < 1e-3
        assert trial.auditor.counted("audited") == trial.auditor.counted("parts") > 1
        trial.auditor.close(0.0)
        until(lambda: any(each.state for each in services))
        monkeypatch.setattr(mpc.provider.watched, "Provider", Cheat)
        trial.audit()
        until(lambda: all("has dealt wrongly" in each.state for each in services))
    finally:
        for each in services:
            each.stop()
        for thread in threads:
            thread.join(10)
