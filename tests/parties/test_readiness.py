"""Reading where something is known to have come: no byte is missed, and none is waited for in vain."""

import select
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import mpc
from mpc.core import frames
from mpc.core.frames import Kind
from mpc.transport.certificates import make_certificate
from mpc.transport.connection import Connection, exchange
from mpc.transport.loop import Loop
from mpc.transport.tls_session import Tls
from nn.serving.model_files import ModelFiles


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    files = [tmp_path_factory.mktemp("keys") / name for name in ("bob.crt", "bob.key")]
    make_certificate("bob", *files)
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    server.load_cert_chain(*files)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return client, server


@pytest.fixture
def pair(contexts):
    """Two ends of a TLS connection, of which no byte is left unread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    ends = Tls(near, contexts[0], server=False), Tls(far, contexts[1], server=True)
    while sum(end.step() for end in ends) < 2:
        pass
    connections = Connection(ends[0], "bob"), Connection(ends[1], "alice")
    # A first frame, since TLS sends tickets behind its handshake.
    say(connections[1], b"hello")
    assert hear(connections[0]) == b"hello"
    yield connections
    for connection in connections:
        connection.close()


def say(connection, data):
    connection.post_bytes(Kind.CALL, data)
    while not connection.push():
        pass


def hear(connection):
    connection.expect_bytes([Kind.CALL], 1 << 30)
    exchange([connection], 60)
    return connection.take().data.tobytes()


def readable(connection):
    return select.select([connection], [], [], 5)[0]


def test_a_socket_is_read_only_if_something_is_said_to_be_there(pair):
    near, far = pair
    say(far, b"one")
    assert readable(near)
    near.expect_bytes([Kind.CALL], 100)
    before = near.received_bytes
    assert not near.advance(readable=False) and near.received_bytes == before
    assert near.advance(readable=True) and near.take().data.tobytes() == b"one"
    # Who says nothing has the socket asked.
    say(far, b"two")
    assert readable(near)
    near.expect_bytes([Kind.CALL], 100)
    assert near.advance() and near.take().data.tobytes() == b"two"


def test_what_has_come_with_an_earlier_frame_needs_no_further_word(pair):
    near, far = pair
    for data in (b"one", b"two", b"three"):
        far.post_bytes(Kind.CALL, data)
    assert far.push() and readable(near)
    near.expect_bytes([Kind.CALL], 100)
    assert near.advance(readable=True) and near.take().data.tobytes() == b"one"
    for data in (b"two", b"three"):
        near.expect_bytes([Kind.CALL], 100)
        assert near.advance(readable=False) and near.take().data.tobytes() == data


def test_an_exchange_that_sleeps_at_once(pair):
    near, far = pair

    def answer():
        for _ in range(20):
            say(far, hear(far) * 30_000)

    thread = threading.Thread(target=answer)
    thread.start()
    for k in range(20):
        near.post_bytes(Kind.CALL, b"%19d" % k)
        near.expect_bytes([Kind.CALL], 1 << 20)
        exchange([near], 60, busy=False)
        assert near.take().data.tobytes() == b"%19d" % k * 30_000
    thread.join()
    near.expect_bytes([Kind.CALL], 100)
    with pytest.raises(mpc.PeerError, match=r"^bob did not answer within 0.1 s"):
        exchange([near], 0.1, busy=False)
    far.close()
    with pytest.raises(mpc.PeerError, match="bob closed the connection"):
        exchange([near], 60, busy=False)


class Dripping:
    """A connection that moves some bytes each time it is looked at, while a clock goes on."""

    peer, expecting, holds = "bob", True, False
    sent_bytes = received_bytes = 0

    def __init__(self, socket, size, chunk, seconds):
        self.fileno, self.left, self.chunk, self.seconds = socket.fileno, size, chunk, seconds
        self.clock = self.looks = 0

    def events(self):
        return select.POLLOUT

    def advance(self, most=0, readable=None):
        self.looks += 1
        assert self.looks < 10_000, "for ever"
        self.clock += self.seconds
        self.received_bytes += min(self.chunk, self.left)
        self.left -= min(self.chunk, self.left)
        return not self.left


def test_who_sends_byte_by_byte_is_not_waited_for_for_ever(monkeypatch):
    near, far = socket.socketpair()
    with near, far:

        def wait(size, chunk, seconds):
            link = Dripping(near, size, chunk, seconds)
            clock = SimpleNamespace(monotonic=lambda: link.clock, perf_counter=time.perf_counter)
            monkeypatch.setattr("mpc.transport.waiting.time", clock)
            exchange([link], 60, busy=False)
            return link.clock

        # Of a megabyte, a byte every fifty seconds.
        with pytest.raises(mpc.PeerError, match="^bob did not answer within 60 s"):
            wait(1 << 20, 1, 50)
        # A slow network, and one that stops for a while, again and again.
        assert wait(1 << 20, 1 << 10, 1) == 1024
        assert wait(1 << 20, 1 << 17, 50) == 400


def test_a_frame_beside_another_takes_no_record_of_its_own(pair):
    near, far = pair
    words = np.arange(6, dtype=np.uint64)
    for size, joined in ((100, True), (frames.RECORD_BYTES - 31, False)):
        sent = []
        for beside in (False, True):
            before = near.sent_bytes
            near.post_bytes(Kind.CALL, bytes(size))
            near.post(Kind.SHARE, [words], beside=beside)
            assert near.push() and not near.outgoing_bytes
            sent.append(near.sent_bytes - before)
            assert hear(far) == bytes(size)
            far.expect_arrays(Kind.SHARE, ((6,),))
            exchange([far], 60)
            np.testing.assert_array_equal(far.take().arrays()[0], words)
        assert (sent[1] < sent[0]) == joined


def test_a_loop_hears_frames_of_all_sizes(pair):
    near, far = pair
    sizes, heard, done = [1, 3_000_000, 0, 20_000, 5], [], threading.Event()

    def listens():
        for _ in sizes:
            far.expect_bytes([Kind.CALL], 1 << 30)
            yield 5
            heard.append(far.take().data.nbytes)
            far.post_bytes(Kind.ANSWER, b"heard")
            yield 5
        done.set()
        return None

    loop = Loop("bob")
    loop.start()
    try:
        loop.call(lambda: loop.add(far, listens()))
        for size in sizes:
            near.post_bytes(Kind.CALL, bytes(size))
            near.expect_bytes([Kind.ANSWER], 100)
            exchange([near], 60)
            assert near.take().data.tobytes() == b"heard"
        assert done.wait(60) and heard == sizes
    finally:
        loop.close()


def test_the_widest_model_is_that_of_all_files_in_use():
    def file(width, set_id):
        return SimpleNamespace(header={"n_features": width}, set_id=np.full(3, set_id, np.uint64))

    read = SimpleNamespace(parties={"alice": SimpleNamespace(folders={})}, names=("alice", "bob"))
    files = ModelFiles(read, "alice", {})
    assert files.widest == 0
    wide, narrow, other = file(64, 1), file(8, 2), file(9, 3)
    files.take({"one": wide})
    files.settle({"one": wide})
    assert files.widest == 64
    # Until all parties have the new set, the old one is served.
    files.take({"one": narrow, "two": other})
    assert files.widest == 64
    files.settle({"one": narrow})
    assert files.widest == 9
    files.take({})
    assert files.widest == 0
