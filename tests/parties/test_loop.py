"""The loop of conversations: who calls it from another thread is heard at once, who drips is not."""

import select
import socket
from types import SimpleNamespace

import mpc
from mpc.transport.loop import Loop


class _Interrupted:
    """A socket during whose first read another thread calls the loop."""

    def __init__(self, sock, interrupt):
        self._sock, self._interrupt = sock, interrupt

    def recv(self, size):
        data = self._sock.recv(size)
        interrupt, self._interrupt = self._interrupt, lambda: None
        interrupt()
        return data


def test_a_call_while_the_loop_clears_its_signal_loses_no_later_one():
    loop, called = Loop("alice"), []
    awake = loop._awake
    loop.call(lambda: called.append("first"))
    loop._awake = _Interrupted(awake, lambda: loop.call(lambda: called.append("second")))
    loop._quiet()
    loop._awake = awake
    while loop._calls:
        loop._calls.popleft()()
    assert called == ["first", "second"]
    loop.call(lambda: called.append("third"))
    readable, _, _ = select.select([awake], [], [], 0)
    assert readable, "nobody wakes the loop for the third call"
    loop.start()
    loop.close()
    assert called[-1] == "third"


class _Line:
    """A line over which some bytes come now and then."""

    peer = "dora"

    def __init__(self, sock):
        self.fileno, self.bytes, self.open = sock.fileno, 0, True

    def events(self):
        return select.POLLIN

    def advance(self, *, readable):
        return False

    def moved(self):
        return self.bytes

    def close(self):
        self.open = False


def test_who_sends_byte_by_byte_is_not_waited_for_for_ever(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("mpc.transport.loop.time", clock)
    loop, (near, far) = Loop("alice"), socket.socketpair()
    with near, far:

        def waited(chunk, seconds, idle=0.0):
            """Return for how long a conversation has waited, of 600 s at most, and how it ended."""
            ends, line = [], _Line(near)

            def talk():
                try:
                    yield 60.0 if not idle else 2 * idle
                except mpc.PeerTimeoutError as error:
                    ends.append(str(error))

            seat = loop.add(line, talk())
            begin = clock.now
            clock.now += idle
            if idle:
                seat.begins(60.0)
            while not ends and clock.now < begin + idle + 600:
                clock.now += seconds
                line.bytes += chunk
                loop._look()
            loop.detach(seat)
            return clock.now - begin - idle, ends

        for idle in (0.0, 1000.0):
            assert waited(1, 50.0, idle) == (100.0, ["dora did not answer within 60 s"])
            # A slow network, and one that stops for a while, again and again.
            assert waited(1024, 1.0, idle) == (600.0, [])
            assert waited(1 << 17, 50.0, idle) == (600.0, [])
    loop.close()
