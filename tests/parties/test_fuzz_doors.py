"""Anything at all at the ports of running services, before anybody has proved who they are.

SOTTO_FUZZ sets the number of connections (a thousand: a few seconds), SOTTO_SEED the seed.
"""

import os
import random
import re
import socket
import ssl
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import nn
from mpc.parties import configuration
from mpc.parties.tls import own_contexts
from tests.helpers.programs import network
from tests.helpers.services import MODELS, Services
from tests.parties.test_fuzz import mutated

CASES = int(os.environ.get("SOTTO_FUZZ", "1000"))
SEED = int(os.environ.get("SOTTO_SEED", str(random.SystemRandom().randrange(10**6))))
X = np.random.default_rng(6).random((3, 64))
# `sotto`, which lets in as many a second as come.
COMMAND = (
    "import sys; from mpc.transport import listener; listener._A_SECOND = 10**9;"
    "from nn.command import main; sys.exit(main(sys.argv[1:]))"
)
# All that a log may say of those who are not let in: words of OpenSSL's and of our own.
WHY = re.compile(
    r"[A-Z0-9_]{5,}|it was gone before TLS was done"
    r"|127\.0\.0\.1 did not finish in time|too many at once that do not finish TLS"
    r"|self-signed certificate"
)


class Open(Services):
    def start(self, name):
        super().start(name, program=("-c", COMMAND))


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Open(tmp_path_factory.mktemp("doors"), {"network": MODELS["network"]}, workers=1)
    yield running
    assert not running.stop()


def works(services):
    with nn.Client(services.path, me="dora", model="network", patience=60) as client:
        np.testing.assert_array_equal(client.predict(X), network().predict(X))


def held(services):
    """Return how many threads and file descriptors each service has."""
    places = {name: Path(f"/proc/{services.processes[name].pid}") for name in services.logs}
    return {
        name: tuple(len(list((place / what).iterdir())) for what in ("task", "fd"))
        for name, place in places.items()
    }


def client_hello(read):
    context, _ = own_contexts(read, "erin")
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


def first_words(draw, hello):
    """Return what somebody begins with."""
    kind = draw.randrange(6)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 600))
    if kind == 1:
        return b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n" * draw.randrange(1, 40)
    if kind == 2:
        return hello + draw.randbytes(draw.randrange(1, 600))
    if kind == 3:
        # A record of TLS, whatever is in it.
        body = draw.randbytes(draw.randrange(1, 300))
        return struct.pack(">BHH", draw.randrange(20, 25), 0x0301, len(body)) + body
    if kind == 4:
        return hello[: draw.randrange(len(hello))]
    return mutated(draw, hello)


def leave(draw, sock):
    """Hang up in one of several ways; those that stay are returned."""
    way = draw.randrange(5)
    if way == 0:
        return sock
    if way == 1:
        # With a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif way == 2:
        sock.shutdown(socket.SHUT_WR)
    elif way == 3:
        try:
            while sock.recv(1000):
                pass
        except OSError:
            pass
    sock.close()
    return None


def test_anything_at_the_doors(services, capsys):
    works(services)
    read = configuration.load(services.path)
    members = [read.provider, *read.parties.values()]
    draw, hello = random.Random(SEED), client_hello(read)
    before, staying, begin = held(services), [], time.monotonic()
    for number in range(CASES):
        sock = socket.create_connection(draw.choice(members).address, timeout=0.05)
        try:
            sock.sendall(first_words(draw, hello))
            if (stays := leave(draw, sock)) is not None:
                staying.append(stays)
        except OSError:
            sock.close()
        if len(staying) > 60:
            staying.pop(draw.randrange(len(staying))).close()
        if number % max(200, CASES // 50) == 0:
            works(services)
    seconds = time.monotonic() - begin
    works(services)
    for sock in staying:
        sock.close()
    end = time.monotonic() + 60
    while any(np.greater(now, before[name]).any() for name, now in held(services).items()):
        assert time.monotonic() < end, f"SOTTO_SEED={SEED}: {before} before, {held(services)} after"
        time.sleep(0.2)
    for name in services.logs:
        told = services.told(name)
        assert services.processes[name].poll() is None, f"SOTTO_SEED={SEED}: {name} has ended"
        assert "Traceback" not in told and "event=failed" not in told, f"SOTTO_SEED={SEED}: {told}"
        refused = services.lines(name, "refused")
        assert refused
        for line in refused:
            why = re.fullmatch(r".* why='?(.*?)'?(?: more=\d+)?", line)[1]
            assert WHY.fullmatch(why), f"SOTTO_SEED={SEED}: {line}"
    if CASES > 1000:
        with capsys.disabled():
            print(
                f"\nSOTTO_SEED={SEED}: {CASES} connections in {seconds:.0f} s, held {held(services)}"
            )
