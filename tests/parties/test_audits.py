"""An auditor beside parties and a provider that talk over TLS: all in threads of one process."""

import threading
import time
import warnings
from collections import Counter
from dataclasses import fields, replace
from functools import partial
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest

import mpc
import mpc.provider.service
import nn
from mpc.core import events
from mpc.core.errors import AuditError
from mpc.core.keys import fresh_streams
from mpc.launch import start as start_processes
from mpc.parties.handshake import HandshakeError
from mpc.parties.health import ask
from mpc.provider import auditor, signed
from mpc.provider.announced import Tellers
from mpc.provider.audit_link import AuditLink, LastPartyLink
from mpc.provider.evidence import load_evidence
from mpc.provider.signed import hashes_of
from mpc.workers.pool import FAILURE, Part
from mpc.workers.spread import _SpreadCall
from nn.command import main
from nn.serving.service import PartyService
from tests.helpers.audit_trials import VALUES, give, trials_in, two_steps
from tests.helpers.programs import Cheat, audited

# No run of these tests draws a coin that falls.
NEVER = 1e-12


@pytest.fixture
def start(tmp_path):
    yield from trials_in(tmp_path)


@pytest.fixture
def logged(monkeypatch):
    """The events that services and sessions log, as (event, fields)."""
    found = []
    hear = [lambda event, _, fields: found.append((event, dict(fields)))]
    monkeypatch.setattr(events, "_hearers", hear)
    return found


def many_steps(session):
    """A program whose last openings are to one party alone, the first and the last."""

    def run(s):
        x, y = (give(s, VALUES, name) for name in (s.parties[0], s.parties[-1]))
        z = (x * y).relu() + (x < y) * x
        (z.reshape(4, 6) @ y.reshape(6, 4)).argmax(axis=1, one_hot=True).reveal(to=s.parties[0])
        return z.sum().reveal(to=s.parties[-1])

    session.prepare(run)
    run(session)
    return run(session)


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")], ids=len)
def test_results_are_those_of_a_session_without_an_auditor(start, parties):
    trial = start(parties, signed=len(parties) == 3)
    found = trial.run(many_steps)
    with mpc.Session(parties) as s:
        expected = many_steps(s)
    assert found.pop(parties[-1]) == pytest.approx(expected, abs=1e-3)
    assert set(found.values()) == {None}
    health = trial.auditor.health()
    assert health["parts"] == health["audited"] >= 4 and health["wrong"] == 0
    assert not list(trial.folder.glob("*.audit"))
    assert [each.role for each in ask(trial.read, "alice") if each.told] == ["provider", "auditor"]


def test_a_cheat_ends_the_session_at_every_party(start, monkeypatch, logged):
    monkeypatch.setattr(mpc.provider.service, "Provider", Cheat)
    trial = start(("alice", "bob", "carol"))
    found = trial.run(two_steps)
    for error in found.values():
        assert type(error) is AuditError
        assert "provider has dealt wrongly for ids" in str(error)
        assert "(blocks 0 to 0), as auditor has found" in str(error)
    assert trial.auditor.counted("wrong") == 1
    # The provider hears that it is over, and not why.
    trial.close()
    (session,) = [f for e, f in logged if e == "session" and "corrections" in f]
    assert session["problem"] == "-"


def test_a_cheat_in_a_process_of_its_own(tmp_path):
    with pytest.raises(mpc.LaunchError) as caught:
        start_processes(
            lambda _: partial(audited, tmp_path),
            ("alice", "bob"), auditor=True, audit_rate=1.0, audit_signed=True,
        )  # fmt: skip
    errors = caught.value.errors
    assert set(errors) == {"alice", "bob"}
    assert all("AuditError: provider has dealt wrongly for ids" in text for text in errors.values())
    (path,) = tmp_path.glob("*.audit")
    found = load_evidence(path)
    assert found.problems([found.provider], [found.auditor]) == []


def test_a_cheat_whom_nobody_looks_at_is_not_found(start, monkeypatch):
    """The control: without the audit the same cheat makes the result wrong."""
    monkeypatch.setattr(mpc.provider.service, "Provider", Cheat)
    trial = start(rate=NEVER)
    found = trial.run(two_steps)
    assert np.abs(found["alice"] - np.maximum(VALUES * VALUES, 0)).max() > 1
    assert trial.auditor.counted("parts") >= 1 and trial.auditor.counted("audited") == 0


def test_nothing_is_used_before_it_is_cleared(start, monkeypatch):
    """The auditor never says a word: no party gets a result, and each says whom it waits for."""
    monkeypatch.setattr(auditor._Auditing, "_clear", lambda self: None)
    trial = start(answer=0.5)
    for error in trial.run(two_steps).values():
        assert isinstance(error, mpc.PeerTimeoutError) or "auditor" in str(error)
        assert "auditor" in str(error)


def test_an_error_of_the_program_tells_the_provider_nothing(start, logged):
    def fails(session):
        two_steps(session)
        raise ValueError("one of 17 rows is too large")

    trial = start()
    assert all(isinstance(error, Exception) for error in trial.run(fails).values())
    trial.close()
    problems = [f["problem"] for e, f in logged if e == "session" and "me" not in f]
    assert problems == ["-", "-"]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (
            ("open", bytes(16), (0,), (0,), ()),
            "asked for keys of blocks that are not those of the next part",
        ),
        (("clear", 10**6), "cleared corrections that it was not told of"),
        (("clear", 0), "sent a message that is malformed"),
        (("open", bytes(16), (0,), (1, 1), ()), "sent a message that is malformed"),
        (("left",), "sent a message that is malformed"),
    ],
)
def test_an_auditor_that_lies_ends_the_session(start, monkeypatch, lie, said):
    """It asks for keys before corrections are bound, or clears what it cannot have seen."""
    run = auditor._Auditing.run

    def lying(self):
        self._send(self._names[-1], lie)
        run(self)

    monkeypatch.setattr(auditor._Auditing, "run", lying)
    found = start().run(two_steps)
    assert f"auditor {said}" in str(found["bob"]) and isinstance(found["bob"], mpc.FrameError)
    assert isinstance(found["alice"], mpc.PeerError)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (("keys", b"", b""), "alice sent keys that it was not asked for"),
        (("part", b"", 1, bytes(16)), "alice sent a message that is malformed"),
        ("", "alice sent a message that is malformed"),
    ],
)
def test_the_auditor_ends_a_session_in_which_a_party_lies(start, monkeypatch, lie, said, logged):
    wait = AuditLink.wait

    def lying(self, id):
        if type(self) is AuditLink:
            self._post(lie)
        wait(self, id)

    monkeypatch.setattr(AuditLink, "wait", lying)
    trial = start(rate=NEVER)
    # One that has its result already need not notice any more.
    trial.run(two_steps)
    trial.close()
    assert said in [f["problem"] for e, f in logged if e == "session" and "audited" in f]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (None, "alice did not open keys to auditor within 0.5 s"),
        ((b"", b""), "alice sent keys of other blocks than it was asked for"),
    ],
)
def test_a_party_that_does_not_open_ends_the_session(start, monkeypatch, sent, said):
    opens = AuditLink._open

    def refuse(self, tags, picked, blocks):
        if type(self) is not AuditLink:
            opens(self, tags, picked, blocks)
        elif sent is not None:
            self._post(("keys", *sent))

    monkeypatch.setattr(AuditLink, "_open", refuse)
    for error in start(answer=0.5).run(two_steps).values():
        assert isinstance(error, mpc.PeerError) and said in str(error)


def test_a_cheat_can_be_shown_to_others(start, monkeypatch, capsys):
    """By a file without keys, which neither the provider nor the auditor can make alone."""
    monkeypatch.setattr(mpc.provider.service, "Provider", Cheat)
    trial = start(signed=True)

    run = auditor._Auditing.run

    def renewed(self):
        # The provider's certificate is another now; those of the session's beginning count.
        trial.auditor.read = replace(trial.read, provider=trial.read.parties["alice"])
        run(self)

    monkeypatch.setattr(auditor._Auditing, "run", renewed)
    assert {type(error) for error in trial.run(two_steps).values()} == {AuditError}
    (path,) = trial.folder.glob("*.audit")
    parties = str(trial.read.path)
    assert main(["audit", "verify", str(path), parties]) == 0
    assert "other corrections than those" in capsys.readouterr().out
    found = load_evidence(path)
    other = trial.read.parties["alice"].accepted[0]
    forged = {
        "the provider has not signed it": replace(found, number=found.number + 1),
        "the auditor has not signed it": replace(found, follows=bytes(32)),
        "what was dealt is what follows": replace(found, follows=found.dealt),
        "not the provider's": replace(found, provider=other),
        "not the auditor's": replace(found, auditor=other),
        "the provider has not signed it\njunk": replace(found, provider=b"junk"),
    }
    for field in ("session", "requests", "keys", "dealt", "provider_signature"):
        changed = bytes([getattr(found, field)[0] ^ 1]) + getattr(found, field)[1:]
        forged[f"provider has not signed it\n{field}"] = replace(found, **{field: changed})
    for said, each in forged.items():
        path.unlink()
        each.write(trial.folder).rename(path)
        assert main(["audit", "verify", str(path), parties]) == 1
        assert f"{said.partition(chr(10))[0]}" in capsys.readouterr().out
    for damaged in ("", "[]", path.read_text()[:-9], '{"what": "sotto audit 1"}'):
        path.write_text(damaged)
        assert main(["audit", "verify", str(path), parties]) == 78


def test_evidence_has_no_key(start, monkeypatch):
    """Nor anything else that follows from one, but for hashes."""
    monkeypatch.setattr(mpc.provider.service, "Provider", Cheat)
    opened = []
    opens = auditor._Auditing._open

    def keep(self, name, masks, corrections):
        opened.append(masks + corrections)
        opens(self, name, masks, corrections)

    monkeypatch.setattr(auditor._Auditing, "_open", keep)
    trial = start(signed=True)
    trial.run(two_steps)
    (path,) = trial.folder.glob("*.audit")
    found = load_evidence(path)
    held = b"".join(getattr(found, field.name) for field in fields(found) if field.name != "number")
    keys = b"".join(opened)
    assert len(keys) >= 3 * 16
    assert not any(keys[k : k + 8] in held for k in range(0, len(keys), 8))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("corrections", "a signature that is not its own, or of something else than it has sent"),
        ("number", "a signature that is not its own, or of something else than it has sent"),
        ("session", "a signature that is not its own, or of something else than it has sent"),
        ("keys", "sent a signature of other keys"),
        ("alice's", "sent a signature of other keys"),
        ("nothing", "something else than a signature"),
    ],
)
def test_a_provider_that_signs_something_else_ends_the_session(start, monkeypatch, what, said):
    """Of an earlier part or session, other corrections than it sends, or other keys."""
    dealt = signed.ProviderSignatures.dealt

    def lying(self, words):
        if what == "corrections":
            words = words + np.uint64(1)
        if what == "number":
            self._number += 1
        if what == "session":
            self._session = bytes(16)
        if what == "keys":
            self._streams = fresh_streams(2)[0]
            self._streams = [(each.masks, each.corrections) for each in self._streams]
        if what == "alice's":
            other = fresh_streams(1)[0][0]
            self._streams = [(other.masks, other.corrections), self._streams[1]]
        found = dealt(self, words)
        return b"" if what == "nothing" and found else found

    if what == "nothing":
        said = "provider sent"
    monkeypatch.setattr(signed.ProviderSignatures, "dealt", lying)
    found = start(signed=True, rate=NEVER).run(two_steps)
    one, other = ("alice", "bob") if what == "alice's" else ("bob", "alice")
    assert isinstance(found[one], mpc.FrameError) and said in str(found[one])
    assert isinstance(found[other], mpc.PeerError)


def test_nothing_is_computed_from_keys_that_the_provider_has_not_signed(start, monkeypatch):
    """Else the last party could have a forged mask kept, and used against the provider later."""
    bind, opens, computed = LastPartyLink._bind, AuditLink._open, []

    def lying(self, said):
        hashes, *rest = said
        own = hashes_of(self._keys(self._needed(self._requested[0], (0,))))
        forged = sha256(bytes(16)).digest() * (len(own) // 32)
        bind(self, (hashes.replace(own, forged), *rest))

    def open_forged(self, tags, picked, blocks):
        if type(self) is AuditLink:
            opens(self, tags, picked, blocks)
        else:
            self._post(("keys", bytes(16 * len(blocks.masks)), b""))

    monkeypatch.setattr(LastPartyLink, "_bind", lying)
    monkeypatch.setattr(AuditLink, "_open", open_forged)
    monkeypatch.setattr(auditor.Recomputation, "corrections", lambda *said: computed.append(said))
    for error in start(signed=True).run(two_steps).values():
        assert "bob sent a signature that is not the provider's" in str(error)
    assert not computed


def test_parts_that_wait_are_bounded_whatever_they_hold(monkeypatch):
    monkeypatch.setattr(auditor, "_MOST_PENDING_BYTES", 16 * (1024 + 16))
    read = SimpleNamespace(audit_rate=1.0, audit_signed=False, provider=None)
    meeting = SimpleNamespace(counts=Counter(), id=bytes(16))
    auditing = auditor._Auditing(
        SimpleNamespace(read=read),
        meeting,
        dict.fromkeys(("alice", "bob")),
        bytes(16),
        Tellers("auditor", ("alice", "bob"), "semi-honest", signs=False),
    )
    for k in range(16):
        auditing._bind("bob", b"", k + 1, bytes(16))
    with pytest.raises(mpc.FrameError, match="announced more parts than can wait"):
        auditing._bind("bob", b"", 17, bytes(16))


def test_a_cheat_in_a_workers_session_is_no_loss():
    """After a loss the provider would get another try."""
    session = SimpleNamespace(parties=("alice", "bob"), me="alice", here=(0,))
    spread = SimpleNamespace(session=session, tries=1)
    part = Part(None, (), (), state=FAILURE, text="provider has dealt wrongly", wrong=True)
    with pytest.raises(AuditError, match="^provider has dealt wrongly$"):
        _SpreadCall._check(spread, [part], np.array([[FAILURE], [FAILURE]]))


def test_keys_that_differ_accuse_nobody(start, monkeypatch):
    """Where a party opens another key than the provider has signed, the auditor cannot tell who lies."""
    opens = AuditLink._open

    def lying(self, tags, picked, blocks):
        if type(self) is AuditLink:
            forged = bytes(16 * len(blocks.masks)), bytes(48 * len(blocks.corrections))
            self._post(("keys", *forged))
        else:
            opens(self, tags, picked, blocks)

    monkeypatch.setattr(AuditLink, "_open", lying)
    for error in start(signed=True).run(two_steps).values():
        assert isinstance(error, mpc.PeerError) and not isinstance(error, AuditError)
        assert "the provider has signed other keys than alice has opened" in str(error)


@pytest.mark.parametrize("other", ["none", "rate"])
def test_all_must_agree_on_the_auditor(start, other):
    trial = start()
    changed = {"auditor": None} if other == "none" else {"audit_rate": 0.5}
    trial.reads["bob"] = replace(trial.read, **changed)
    for error in trial.run(two_steps).values():
        assert isinstance(error, HandshakeError) and "disagree on auditor" in str(error)


def test_a_party_that_leaves_early_does_not_end_the_others(start):
    """Parts that were asked for ahead and are not used need no audit, and nobody waits for one."""

    def program(session):
        x = give(session, VALUES, "alice")
        session.prepare(lambda s: s.twin(x).relu().relu().relu().reveal())
        return x.relu().reveal()

    found = start().run(program)
    assert np.abs(found["alice"] - np.maximum(VALUES, 0)).max() < 1e-4
    assert np.array_equal(found["alice"], found["bob"])


def test_a_lost_auditor_ends_the_session(start):
    trial = start()

    def program(session):
        two_steps(session)
        trial.auditor.close(0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return two_steps(session)

    for error in trial.run(program).values():
        assert isinstance(error, mpc.PeerError)


def until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_services_have_an_auditor_and_begin_again_with_it(start, tmp_path, capsys, monkeypatch):
    trial = start()
    network = nn.MLP.from_parameters([np.eye(2), np.ones(2), np.eye(2) - 0.5, np.zeros(2)])
    with mpc.Session() as session:
        shared = network.share(session, owner="alice", low=-1, high=1, scores=True)
        nn.save_shares(shared, tmp_path / "model")
    services = [
        PartyService(trial.read, me, {"net": tmp_path / "model"}, sock=trial.sockets[me].dup())
        for me in trial.parties
    ]
    threads = [threading.Thread(target=service.run, daemon=True) for service in services]
    for thread in threads:
        thread.start()
    rows = np.array([[1.0, 0.5], [-1.0, 1.0]])
    expected = network.decision_function(rows)
    try:
        until(lambda: not any(service.state for service in services))
        with nn.Client(trial.read.path, model="net") as client:
            scores = client.decision_function(rows)
        assert np.abs(scores - expected).max() < 1e-3
        assert trial.auditor.counted("audited") == trial.auditor.counted("parts") > 1
        without = replace(trial.read, auditor=None)
        with pytest.raises(mpc.PartyError, match="its auditor and the rate can change only when"):
            services[0].reload(without)
        trial.auditor.close(0.0)
        until(lambda: any("auditor" in service.state for service in services))
        trial.audit()
        until(lambda: not any(service.state for service in services))
        with nn.Client(trial.read.path, model="net") as client:
            assert np.abs(client.decision_function(rows) - expected).max() < 1e-3
        # A provider that is caught gets no other try, and is told nothing, before somebody has looked.
        honest = mpc.provider.service.Provider
        monkeypatch.setattr(mpc.provider.service, "Provider", Cheat)
        trial.auditor.close(0.0)
        until(lambda: any(service.state for service in services))
        trial.audit()
        until(lambda: all("has dealt wrongly" in service.state for service in services))
        said = [each.told["state"] for each in ask(trial.read, "provider") if each.role == "party"]
        assert said == ["alice waits", "bob waits"]
        monkeypatch.setattr(mpc.provider.service, "Provider", honest)
        time.sleep(0.5)
        assert all("has dealt wrongly" in service.state for service in services)
        for service in services:
            service.reload(trial.read)
        until(lambda: not any(service.state for service in services))
    finally:
        for service in services:
            service.stop()
        for thread in threads:
            thread.join(10)
