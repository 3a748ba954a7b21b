"""Programs that tests run in processes of their own."""

import json
import os
import signal
import socket
import ssl
import threading
import time

import numpy as np

import nn
from mpc.transport.connection import Connection
from ring import SottoError


def network():
    rng = np.random.default_rng(0)
    sizes = [(64, 32), (32,), (32, 10), (10,)]
    return nn.MLP.from_parameters([rng.normal(0, 0.2, s) for s in sizes])


def classify(session, x, rows):
    """Alice's network on the last party's rows; what it took by the books, by the socket and by plan."""
    model = network() if session.me == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1)
    images = secret.share_rows(x, owner=session.parties[-1], rows=rows)
    plan = session.plan(lambda planned: secret.twin(planned).predict(planned.twin(images)))
    before, wire = session.cost(), session.bytes_on_the_wire
    labels = secret.predict(images)
    spent, now = session.cost() - before, session.bytes_on_the_wire
    return labels, spent, [b - a for a, b in zip(wire, now, strict=True)], plan.cost


def classify_again(session, batches, x=None):
    """Classify the first rows of `x`, as many as each batch has."""
    return [classify(session, None if x is None else x[:rows], rows) for rows in batches]


def several(session, x):
    """What the local session cannot show: who learns what, and large openings both ways."""
    first, last = session.parties[0], session.parties[-1]
    s = session.share(x, owner="alice", shape=(2,))
    big = session.share(np.arange(3_000_000), owner=first)
    other = session.share(np.arange(3_000_000), owner=last)
    opened = (big + other).reveal()
    return (
        session.me,
        float((s * s).sum().reveal()),
        s.reveal(to=last),
        bool((opened == 2 * np.arange(3_000_000)).all()),
        repr(session),
    )


def divides(session):
    if session.me == "bob":
        raise ZeroDivisionError("12345 is a secret")
    return session.share([1.0], owner="alice").relu().reveal()


def other_shape(session):
    n = 3 if session.me == "bob" else 2
    return session.share(np.ones(n), owner="alice").reveal()


def other_format(session):
    x = [1, 2] if session.me == "alice" else None
    return (session.share(x, owner="alice", shape=(2,)) * 2).reveal()


def work(session, times):
    """Compute round after round, as often at every party."""
    x = session.share(np.ones(1000), owner="alice")
    for _ in range(times):
        with session.layer("1 again"):
            x = x.relu()
    return float(x.sum().reveal())


class Struck:
    """Every process works; one gets a signal after a while, and all tell how it ended for them."""

    def __init__(self, victim, number, after, folder):
        self.victim, self.number, self.after, self.folder = victim, number, after, folder

    def __call__(self, place):
        if place.me == self.victim:
            threading.Timer(self.after, os.kill, (os.getpid(), self.number)).start()
        if place.me == "provider":
            return place.provide()
        try:
            with place.session() as session:
                work(session, 10**9)
                return "finished"
        except SottoError as error:
            (self.folder / place.me).write_text(f"{type(error).__name__}: {error}")
            raise


class Recorded:
    """Run `classify` in two sessions; the provider writes down all that it receives."""

    def __init__(self, path):
        self.path = path

    def __call__(self, place):
        if place.me != "provider":
            for seed in (0, 1):
                x = np.random.default_rng(seed).random((20, 64)) if place.me == "bob" else None
                with place.session() as session:
                    classify(session, x, 20)
            return None
        taken, take = [], Connection.take

        def taking(connection):
            incoming = take(connection)
            taken.append(
                (connection.peer, incoming.header.kind.name, incoming.data.tobytes().hex())
            )
            self.path.write_text(json.dumps(taken))
            return incoming

        Connection.take = taking
        return place.provide()


class Strangers:
    """While the parties meet, alice's address gets visitors; the session must not mind."""

    def __call__(self, place):
        if place.me == "provider":
            return place.provide()
        if place.me == "bob":
            address = place.sock.getsockname()  # not alice's: that one comes from the file
            assert address
            time.sleep(0.3)
        else:
            port = place.sock.getsockname()[1]
            threading.Thread(target=_visit, args=(port,), daemon=True).start()
        with place.session() as session:
            return work(session, 20)


def _visit(port):
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(greeting)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            anonymous.wrap_socket(sock).recv(1)
    except OSError:
        pass


STOP, KILL = signal.SIGSTOP, signal.SIGKILL
