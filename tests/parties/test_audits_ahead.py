"""Programs that run again and again in audited sessions: what they need is checked ahead."""

import time
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import mpc
import mpc.planning
import mpc.provider.service
from mpc.core.errors import AuditError
from mpc.core.frames import Kind
from mpc.planning import Bundle
from mpc.provider import auditor, service
from mpc.provider.announced import Tellers
from mpc.provider.audit_link import LastPartyLink
from mpc.provider.remote import RemoteProvider
from tests.helpers.audit_trials import VALUES, give, trials_in
from tests.helpers.programs import Cheat


@pytest.fixture
def start(tmp_path):
    yield from trials_in(tmp_path)


@pytest.fixture
def ahead(monkeypatch):
    """How often corrections were asked for ahead at a time."""
    found = []
    announce = RemoteProvider.announce_repeats

    def noted(self, base, bundle, times, ids):
        found.append(times)
        announce(self, base, bundle, times, ids)

    monkeypatch.setattr(RemoteProvider, "announce_repeats", noted)
    return found


def product(session, x, y):
    return (x * y).relu().reveal()


def larger(session, x, y):
    return ((x < y) * x).reveal()


def again(session, programs=(product,) * 12, rests=()):
    """Run programs, each prepared; return their results and the ids that were drawn."""
    ids, fresh = [], session.fresh_id

    def drawn(kept=False):
        id = fresh(kept)
        ids.append(id)
        return id

    session.fresh_id = drawn
    found = []
    for k, program in enumerate(programs):
        x = give(session, VALUES + 0.1 * k, session.parties[0])
        y = give(session, VALUES[::-1] + 0.1 * k, session.parties[-1])
        # Masked before the program begins: ids between those of two runs.
        if k % 4 == 3:
            (x + 1).relu()
        key = program, x.outline(), y.outline()
        session.prepare(lambda s, x=x, y=y, run=program: run(s, s.twin(x), s.twin(y)), key)
        if k in rests:
            x * y  # and no more
            session.drop_prepared()
        else:
            found.append(program(session, x, y))
    return found, ids


def expected(programs, rests=()):
    for k, program in enumerate(programs):
        if k not in rests:
            x, y = VALUES + 0.1 * k, VALUES[::-1] + 0.1 * k
            yield np.maximum(x * y, 0) if program is product else (x < y) * x


def check(found, programs, rests=()):
    """Check the results of all parties, that they have drawn the same ids, and none of them twice."""
    errors = [each for each in found.values() if isinstance(each, Exception)]
    assert not errors, errors
    (_, ids), *others = found.values()
    assert all(other == ids for _, other in others)
    assert len(set(ids)) == len(ids)
    for results, _ in found.values():
        for result, wanted in zip(results, expected(programs, rests), strict=True):
            assert np.abs(result - wanted).max() < 2e-3


MIXED = (product, product, larger, product, larger, larger, product, product, product, larger)


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")], ids=len)
@pytest.mark.parametrize("programs", [(product,) * 12, MIXED * 2], ids=["one", "two"])
def test_programs_that_run_again(start, ahead, parties, programs):
    trial = start(parties, signed=len(parties) == 3)
    check(trial.run(lambda session: again(session, programs)), programs)
    assert len(ahead) >= 2 and max(ahead) > 1
    health = trial.auditor.health()
    assert health["wrong"] == 0 and 0 < health["audited"] <= health["parts"]
    # Fewer parts than runs.
    assert health["parts"] < 2 * len(programs)


def test_a_program_that_ends_early_and_one_that_is_forgotten(start, ahead, monkeypatch):
    """What was asked for ahead is dropped, at all parties, and no id serves twice."""
    rests, programs = (6, 13), (product,) * 8 + (larger,) * 8
    monkeypatch.setattr(mpc.planning, "_AHEAD_WORDS", 1 << 11)
    monkeypatch.setattr(mpc.planning, "_PATIENCE", 3)
    dropped, drop = [], RemoteProvider.drop_repeat

    def noted(self, base, bundle):
        dropped.append(base)
        drop(self, base, bundle)

    monkeypatch.setattr(RemoteProvider, "drop_repeat", noted)
    trial = start(rate=0.5)
    check(trial.run(lambda session: again(session, programs, rests)), programs, rests)
    assert ahead and dropped


def test_more_is_never_asked_for_than_half_of_what_was_used(start, ahead):
    programs = (product,) * 9
    trial = start(rate=1e-12)
    trial.run(lambda session: again(session, programs))
    assert 0 < sum(ahead) < 9 + 9 // 2


def test_a_whole_part_is_under_way_while_another_is_used():
    """A part is dealt and checked as a whole: it is asked for before the one before is used up."""
    asked = []
    source = SimpleNamespace(
        repeats=lambda bundle: 4,
        begin_repeat=lambda base, bundle: None,
        announce_repeats=lambda base, bundle, times, ids: asked.append(times),
    )
    repeats, bundle, base, left = mpc.planning.Repeats(source), Bundle(5, None, 10), 0, []
    for k in range(60):
        repeats.begin("key")
        base += repeats.ask("key", bundle, base)
        left.append(len(repeats._programs["key"].bases))
        assert left[-1] <= (k + 1) // 2
    assert min(left[20:]) == 4 and set(asked[-8:]) == {4}


def test_parties_that_prepare_other_programs_notice(start):
    def program(session):
        for k in range(6):
            x = give(session, VALUES, "alice")
            key = "same" if session.me == "bob" else k
            session.prepare(lambda s, x=x: s.twin(x).relu().reveal(), key)
            x.relu().reveal()

    for error in start(rate=1e-12).run(program).values():
        assert isinstance(error, mpc.PeerError)
        assert "not all steps before this one agree" in str(error)


def test_nothing_that_was_asked_for_ahead_is_used_before_a_late_auditor_clears_it(
    start, ahead, monkeypatch
):
    """And what is used is what the tag binds, byte by byte."""
    tagged, used = {}, []
    arrived, corrected = LastPartyLink.arrived, RemoteProvider.corrected
    clear = auditor._Auditing._clear

    def late(self):
        if self._cleared > self._told:
            time.sleep(0.05)
        clear(self)

    def noted(self, words):
        tagged[words.tobytes()] = True
        arrived(self, words)

    def use(self, id, correlation):
        words = corrected(self, id, correlation)
        if words.size:
            used.append((self._audit.cleared >= id, words.tobytes()))
        return words

    monkeypatch.setattr(auditor._Auditing, "_clear", late)
    monkeypatch.setattr(LastPartyLink, "arrived", noted)
    monkeypatch.setattr(RemoteProvider, "corrected", use)
    programs = (product,) * 8
    check(start(rate=0.5).run(lambda session: again(session, programs)), programs)
    assert ahead and len(used) >= 8
    assert all(cleared and words in tagged for cleared, words in used)


class CheatLater(Cheat):
    """Deals so many corrections rightly, and then wrongly."""

    def correct(self, id, correlation, out):
        self.dealt = getattr(self, "dealt", 0) + 1
        if self.dealt > 20:
            super().correct(id, correlation, out)
        else:
            super(Cheat, self).correct(id, correlation, out)


def test_a_provider_that_cheats_ahead_is_caught_before_it_matters(start, ahead, monkeypatch):
    monkeypatch.setattr(mpc.provider.service, "Provider", CheatLater)
    results = {}

    def program(session):
        results[session.me] = found = []
        for _ in range(40):
            x = give(session, VALUES, "alice")
            session.prepare(lambda s, x=x: s.twin(x).relu().reveal(), "relu")
            found.append(x.relu().reveal())

    found = start().run(program)
    assert {type(error) for error in found.values()} == {AuditError}
    assert ahead and all(results.values())
    for each in results.values():
        assert all(np.abs(result - np.maximum(VALUES, 0)).max() < 2e-3 for result in each)


class CheatOnce(Cheat):
    """Deals one correction wrongly, of a run that is asked for with others."""

    def correct(self, id, correlation, out):
        self.dealt = getattr(self, "dealt", 0) + 1
        if self.dealt == 30:
            super().correct(id, correlation, out)
        else:
            super(Cheat, self).correct(id, correlation, out)


def test_of_runs_that_were_asked_for_together_the_wrong_one_is_named(start, ahead, monkeypatch):
    monkeypatch.setattr(mpc.provider.service, "Provider", CheatOnce)
    convicted = []
    convict = auditor._Auditing._convict

    def noted(self, first, last, evidence):
        convicted.append((first, last, len(self._parts[0].tags) // 16, self._parts[0].last))
        return convict(self, first, last, evidence)

    monkeypatch.setattr(auditor._Auditing, "_convict", noted)

    def program(session):
        for _ in range(40):
            x = give(session, VALUES, "alice")
            session.prepare(lambda s, x=x: s.twin(x).relu().reveal(), "relu")
            x.relu().reveal()

    for error in start().run(program).values():
        assert isinstance(error, AuditError)
    ((first, last, runs, end),) = convicted
    assert runs > 2 and last - first < 8 and last <= end
    assert f"for ids {first} to {last} " in str(error)


def test_each_run_of_a_part_has_a_coin_of_its_own():
    """As parts that are asked for one by one have; within sampling error of the rate."""
    read = SimpleNamespace(audit_rate=0.1, audit_signed=False, provider=None)
    meeting = SimpleNamespace(counts=Counter(), id=bytes(16))
    auditing = auditor._Auditing(
        SimpleNamespace(read=read),
        meeting,
        dict.fromkeys(("alice", "bob")),
        bytes(16),
        Tellers("auditor", ("alice", "bob"), "semi-honest", signs=False),
    )
    for k in range(100):
        auditing._bind("bob", b"", k + 1, bytes(16 * 100))
    picked = [len(part.picked) for part in auditing._parts]
    # Six standard deviations of all, and ten of how many a part has.
    assert abs(sum(picked) - 1000) < 6 * 30
    assert len(set(picked)) > 1 and max(picked) < 10 + 5 * 6
    assert [part.number for part in auditing._parts] == list(range(0, 10_000, 100))


@pytest.mark.parametrize("when", ["after the part", "in place of the next"])
def test_a_provider_that_deals_other_bytes_after_the_tag(start, monkeypatch, when):
    """They come as a frame that was not asked for, or under another id: nothing takes them in."""
    answer = service._Dealing._answer

    def again_other(self):
        answer(self)
        if self._meeting.counts["corrections"] == 3:
            self._last.post(Kind.CORRECTION, [np.zeros(24, np.uint64)], 1)
            if when != "after the part":
                self._last.post(Kind.CORRECTION, [np.zeros(24, np.uint64)], 2)

    monkeypatch.setattr(service._Dealing, "_answer", again_other)

    def program(session):
        for _ in range(6):
            x = give(session, VALUES, "alice")
            session.prepare(lambda s, x=x: s.twin(x).relu().reveal(), "relu")
            assert np.abs(x.relu().reveal() - np.maximum(VALUES, 0)).max() < 2e-3

    found = start(rate=1e-12).run(program)
    assert isinstance(found["bob"], mpc.FrameError) and "provider sent" in str(found["bob"])
    assert isinstance(found["alice"], mpc.PeerError)


def test_an_auditor_that_disappears_is_named(start, ahead):
    trial = start()

    def program(session):
        for k in range(200):
            x = give(session, VALUES, "alice")
            session.prepare(lambda s, x=x: s.twin(x).relu().reveal(), "relu")
            x.relu().reveal()
            if k == 8 and session.me == "bob":
                trial.auditor.close(0.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = trial.run(program)
    assert ahead
    for error in found.values():
        assert isinstance(error, mpc.PeerError) and "auditor" in str(error)


def test_a_launch_has_an_auditor_that_writes_evidence(tmp_path):
    found = mpc.launch(repr, auditor=True, audit_signed=True, evidence=tmp_path)
    assert all("auditor='auditor' (rate 0.1, signed)" in text for text in found.values())
    for said, options in {
        "audit_signed=True is for auditor=True": {"audit_signed": True},
        "audit_signed must be True or False, got 1": {"auditor": True, "audit_signed": 1},
        "evidence is of what the provider has signed": {"auditor": True, "evidence": tmp_path},
        "evidence must be a folder that exists": {
            "auditor": True, "audit_signed": True, "evidence": tmp_path / "none"
        },
    }.items():  # fmt: skip
        with pytest.raises(mpc.ArgumentError, match=said):
            mpc.launch(repr, **options)


def test_a_session_says_who_watches(start):
    found = start(rate=0.25, signed=True).run(repr)
    assert all("auditor='auditor' (rate 0.25, signed)" in text for text in found.values())
    with mpc.Session() as session:
        assert "auditor" not in repr(session)
