"""A connection without a network: what is read from it is given, what is written is kept."""

import ssl
from types import SimpleNamespace

from mpc.transport.connection import Connection
from mpc.transport.frames import Kind


class Memory:
    """Stands in for a TLS session: what is read from it is given, what is written is kept."""

    def __init__(self, data=b""):
        self.data, self.written = memoryview(data), bytearray()
        self.object = self.sock = self
        # There is always something to read, if only the end; nothing waits for the socket.
        self.incoming, self.outgoing = SimpleNamespace(pending=1), SimpleNamespace(pending=0)

    def read(self, size, target=None):
        if not len(self.data):
            raise ssl.SSLEOFError
        count = min(size, len(self.data), 700)
        target[:count] = self.data[:count]
        self.data = self.data[count:]
        return count

    def write(self, data):
        self.written += data
        return len(data)

    def setblocking(self, flag):
        pass

    def setsockopt(self, *args):
        pass


def frame_of(arrays, kind=Kind.OPEN, step=5, sequence=0):
    out = Memory()
    connection = Connection(out, "bob")
    connection._next_sent = sequence
    connection.post(kind, arrays, step)
    connection.push()
    return bytes(out.written)


def receive(data, count=1, shapes=((3, 4), (5,))):
    connection = Connection(Memory(data), "bob")
    found = []
    for _ in range(count):
        connection.expect_arrays(Kind.OPEN, shapes, 5)
        connection.pull()
        found.append(connection.take().arrays())
    return found
