"""A connection without a network: what is read from it is given, what is written is kept."""

from mpc.core.frames import Kind
from mpc.transport.connection import Connection


class Memory:
    """Stands in for a TLS session: what is received from it is given, what is sent is kept."""

    unsent = False
    sent_bytes = received_bytes = 0

    def __init__(self, data=b""):
        self.data, self.written = memoryview(data), bytearray()
        self.sock = None

    def start(self):
        pass

    def receive(self, target, whole=False):
        if not len(self.data):
            raise ConnectionResetError
        count = min(len(target), len(self.data), 700)
        target[:count] = self.data[:count]
        self.data = self.data[count:]
        return count

    def send(self, pieces):
        taken = sum(map(len, pieces))
        while pieces:
            self.written += pieces.popleft()
        return taken


def connected(memory):
    return Connection(memory, "bob")


def frame_of(arrays, kind=Kind.OPEN, step=5, sequence=0):
    out = Memory()
    connection = connected(out)
    connection.next_sent = sequence
    connection.post(kind, arrays, step)
    connection.push()
    return bytes(out.written)


def receive(data, count=1, shapes=((3, 4), (5,))):
    connection = connected(Memory(data))
    found = []
    for _ in range(count):
        connection.expect_arrays(Kind.OPEN, shapes, 5)
        connection.pull()
        found.append(connection.take().arrays())
    return found
