"""The loop of conversations: who calls it from another thread is heard at once."""

import select

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
