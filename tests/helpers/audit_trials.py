"""Parties, a provider and its auditor that talk over TLS, all in threads of one process."""

import socket
import threading

import numpy as np

import mpc
from mpc.parties import configuration
from mpc.parties.configuration import Timeouts
from mpc.parties.joining import join_parties
from mpc.provider.auditor import AuditorService
from mpc.provider.service import ProviderService

VALUES = np.linspace(-4, 4, 24)


class Trial:
    """Two or three parties, a provider and an auditor, with a configuration for all."""

    def __init__(
        self, folder, parties=("alice", "bob"), rate=1.0, answer=20.0, signed=False,
        security="semi-honest",
    ):  # fmt: skip
        self.parties, self.folder = parties, folder
        members = (*parties, "provider", "auditor")
        self.sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in members}
        path = configuration.write_example(
            folder / "trial", parties, ("carl",),
            ports=[sock.getsockname()[1] for sock in self.sockets.values()],
            timeouts=Timeouts(connect=40, answer=answer),
            auditor=True, audit_rate=rate, audit_signed=signed, security=security,
        )  # fmt: skip
        self.read = configuration.load(path)
        self.reads = dict.fromkeys(parties, self.read)
        self.provider = ProviderService(self.read, sock=self.sockets["provider"])
        self.audit()

    def audit(self):
        evidence = self.folder if self.read.audit_signed else None
        self.auditor = AuditorService(
            self.read, sock=self.sockets["auditor"].dup(), evidence=evidence
        )

    def _party(self, me, program, found):
        try:
            read = self.reads[me]
            links = join_parties(read, me, "trial", self.sockets[me].dup())
            with mpc.Session.from_links(read, me, links) as session:
                found[me] = program(session)
        except Exception as error:
            found[me] = error

    def run(self, program):
        """Return what the program returns or raises at each party."""
        found = {}
        threads = [
            threading.Thread(target=self._party, args=(name, program, found), daemon=True)
            for name in self.parties
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found.keys() == set(self.parties)
        return found

    def close(self):
        self.auditor.close(0.2)
        self.provider.close(0.2)
        for sock in self.sockets.values():
            sock.close()


def trials_in(folder):
    """Yield a function that makes trials, and close all of them behind; for a fixture."""
    made = []

    def make(*arguments, **options):
        made.append(Trial(folder, *arguments, **options))
        return made[-1]

    yield make
    for trial in made:
        trial.close()


def give(session, values, owner):
    """Share values that a party owns, of whom only that party has them."""
    mine = session.me in (owner, None)
    return session.share(values if mine else None, owner, shape=values.shape, bound=8)


def two_steps(session):
    x, y = (give(session, VALUES, name) for name in (session.parties[0], session.parties[-1]))
    return (x * y).relu().reveal()
