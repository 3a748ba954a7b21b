"""Workers of watched parties, in processes: right answers, and a worker that cheats."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mpc
from mpc.core.errors import ABORTED
from mpc.core.frames import Kind
from mpc.launch import HELPERS, start
from mpc.parties import configuration
from mpc.parties.configuration import write_example
from mpc.workers.spread import spread
from tests.helpers import spread_programs as programs
from tests.helpers.programs import network
from tests.parties.test_watched_apart import MORE, NAMES, flips


@pytest.mark.parametrize("names", [NAMES, MORE], ids=len)
def test_models_give_the_same_answers(names):
    # Workers have an auditor if their parties have one; below they have none.
    found = mpc.launch(
        programs.predicts, names, security="malicious", timeout=200, auditor=True, audit_rate=1.0
    )
    plain = network()
    for labels, scores in found.values():
        np.testing.assert_array_equal(labels, plain.predict(programs.images()))
        np.testing.assert_allclose(scores, plain.decision_function(programs.images()), atol=1e-3)


class Cheating(programs.Marked):
    """A worker's program in which one party's worker flips a bit of one message."""

    def __init__(self, folder, cheater, kind, number):
        super().__init__(folder)
        self.cheater, self.kind, self.sent = cheater, kind, number

    def __call__(self, session, x, w):
        if session.me == self.cheater:
            flips(session, self.sent, self.kind)
        return super().__call__(session, x, w)


CHEATS = {"an opening": ("bob", Kind.OPEN, 2), "a check": ("carol", Kind.CHECK, 1)}


@dataclass(frozen=True)
class Attacks:
    """In each process: a session for each cheat, and what came of it."""

    folder: Path

    def __call__(self, place):
        if place.me in HELPERS:
            return place.provide()
        found = {}
        for name, cheat in CHEATS.items():
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            try:
                with place.session("attacks") as session:
                    x, w = programs.operands(session)
                    found[name] = spread(session, Cheating(folder, *cheat), x, w, n_jobs=1).reveal()
            except mpc.SottoError as error:
                found[name] = type(error).__name__, str(error)
        return found


@pytest.mark.parametrize("names", [NAMES, MORE], ids=len)
def test_a_worker_that_cheats_ends_the_session_of_all_parties_at_once(names, tmp_path):
    found = start(
        lambda _: Attacks(tmp_path), names, timeout=300, answer_timeout=60, security="malicious"
    )
    for name, (cheater, *_) in CHEATS.items():
        for party in {*names} - {cheater}:
            assert found[party][name] == ("AbortError", ABORTED), (party, name, found[party])
        # A try that has failed for this is the last one.
        sessions = {path.name.split(".")[2] for path in (tmp_path / name).iterdir()}
        assert len(sessions) == 1, name


def test_parties_toml_may_name_workers(tmp_path):
    path = write_example(tmp_path / "c", NAMES, (), security="malicious")
    path.write_text(path.read_text().replace("[format]", "[workers]\nn_jobs = 2\n\n[format]", 1))
    read = configuration.load(path)
    assert (read.security, read.workers.n_jobs) == ("malicious", 2)
