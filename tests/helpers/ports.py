"""Ports for services of tests: of another part of them in each process that tests at the same time."""

import os
import socket
from contextlib import suppress
from random import randrange

# More processes than that test together nowhere.
PARTS = 4
# Below those that systems give to outgoing connections, which might take one before a service does.
SINGLE, ROWS = (10_000, 20_000), (20_000, 32_000)


def own_part(first, last):
    """Return the part of a range of ports that is for this process alone: the first and the last."""
    size = (last - first) // PARTS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
    return first + worker * size, first + (worker + 1) * size


def free_ports(count):
    """Return ports that nobody listens at."""
    sockets = []
    while len(sockets) < count:
        with suppress(OSError):
            sockets.append(socket.create_server(("127.0.0.1", randrange(*own_part(*SINGLE)))))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def free_port(first=ROWS[0], last=ROWS[1]):
    """Return the first of three ports in a row that are free."""
    first, last = own_part(first, last)
    # Runs of their own begin far from each other, too.
    for port in range(first + os.getpid() * 97 % ((last - first) // 2), last, 7):
        try:
            for k in range(3):
                socket.create_server(("127.0.0.1", port + k)).close()
        except OSError:
            continue
        return port
    raise OSError("no free ports")
