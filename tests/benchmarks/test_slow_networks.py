"""The relay does what is asked of it, and the benchmarks over processes and slow networks run."""

import contextlib
import json
import socket
import struct
import threading
import time

import pytest


@pytest.fixture
def relay(benchmark):
    return benchmark("relay")


def test_bytes_pass_the_senders_line_then_the_receivers(relay):
    out, into = relay.Line(1.0), relay.Line(1.0)
    # Cut through: what has left one line has passed the other a moment later, not twice as late.
    assert relay.arrives(out, into, 10, now=5.0) == 15.0
    # Behind it on the line, even if it comes while the line is busy.
    assert relay.arrives(out, into, 10, now=6.0) == 25.0
    # Somebody else's line is free, the receiver's is not.
    assert relay.arrives(relay.Line(1.0), into, 10, now=6.0) == 35.0
    # A slow line before a fast one: the last byte counts.
    assert relay.arrives(relay.Line(2.0), relay.Line(1.0), 10, now=0.0) == 20.0
    assert relay.arrives(relay.Line(1.0), relay.Line(2.0), 10, now=0.0) == 20.0
    # After a rest nothing is left of the queue.
    assert relay.arrives(out, into, 1, now=100.0) == 101.0


@pytest.fixture
def flow(relay):
    """One direction whose lines pass a byte a second, its sender and its receiver."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        (near, source), (target, far) = [[stack.enter_context(s) for s in p] for p in pairs]
        source.setblocking(False)
        target.setblocking(False)
        yield relay.Flow(source, target, relay.Line(1.0), relay.Line(1.0)), near, far


def test_two_pieces_wait_for_the_line_and_the_others_with_the_sender(flow):
    one, near, far = flow
    assert one.read() is None
    near.sendall(bytes(10))
    first = one.read()
    assert one.reads(time.monotonic())
    near.sendall(bytes(10))
    assert one.read() == first + 10
    assert not one.reads(first - 1)
    assert one.reads(first)
    one.write(first + 1, delay=2)
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(100)
    one.write(first + 2, delay=2)
    assert len(far.recv(100)) == 10


def test_a_receiver_that_takes_nothing_stops_the_sender(relay, flow):
    one, near, far = flow
    one.out, one.into = relay.Line(0.0), relay.Line(0.0)
    sent = 0
    now = time.monotonic() + 1000
    while not one.blocked:
        near.sendall(bytes(1000))
        sent += 1000
        one.read()
        one.write(now, delay=0)
    assert not one.reads(now)
    far.setblocking(False)
    got = 0
    while got < sent:
        with contextlib.suppress(BlockingIOError):
            got += len(far.recv(1 << 20))
        one.write(now, delay=0)
    assert one.reads(now)
    # What the sender has kept meanwhile starts now.
    near.sendall(b"1")
    assert one.read() == now


def test_pieces_start_when_the_system_got_them(relay):
    class Kept:
        def __init__(self, seconds_ago):
            self.came = time.time_ns() - seconds_ago * 10**9

        def recvmsg(self, *_):
            note = struct.pack("@ll", *divmod(self.came, 10**9))
            return b"1", [(socket.SOL_SOCKET, relay.SO_TIMESTAMPNS, note)], 0, None

    begin = time.monotonic()
    data, came = relay.receive(Kept(500))
    assert data == b"1"
    assert begin - 501 < came < time.monotonic() - 499
    # A clock that was set back moves nothing into the future.
    _, came = relay.receive(Kept(-500))
    assert begin <= came <= time.monotonic()


def test_what_is_due_comes_in_order(relay):
    times = relay.Timetable()
    assert times.rest() is None
    one, other, third = object(), object(), object()
    for when, what in ((2.0, one), (1.0, other), (1.0, third)):
        times.add(when, what)
    assert times.due(0.5) is None
    assert [times.due(1.0) for _ in range(3)] == [other, third, None]
    assert times.rest() == 0
    assert times.due(2.0) is one
    assert times.rest() is None
    times.add(time.monotonic() + 1000, one)
    assert 0 < times.rest() < 1000


def test_delay_and_bandwidth_are_no_less_than_asked(relay):
    # So long that no busy machine takes as long by itself.
    round_trip, rate = relay.measured(0.3, 2e7, times=5)
    assert round_trip >= 0.3
    assert rate <= 1.05 * 2e7
    quick, fast = relay.measured(0.0, 1e9)
    assert quick < round_trip
    assert fast > rate


def test_bytes_come_through_both_ways_and_ends_are_passed_on(relay):
    sent = bytes(range(256)) * 4000
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            far, _ = server.accept()
            with far:
                data = b""
                while piece := far.recv(1 << 16):
                    data += piece
                far.sendall(data[::-1])

        thread = threading.Thread(target=answer)
        thread.start()
        with relay.relayed({("one", "other"): port}, 0.002, 1e9) as ports:
            with socket.create_connection(("127.0.0.1", ports["one", "other"])) as near:
                assert near.getpeername()[0] == "127.0.0.1"
                near.sendall(sent)
                near.shutdown(socket.SHUT_WR)
                got = b""
                while piece := near.recv(1 << 16):
                    got += piece
        thread.join()
    assert got == sent[::-1]


def test_bytes_wait_for_a_receiver_that_is_slow(relay):
    sent = bytes(range(256)) * (1 << 16)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with relay.relayed({("one", "other"): port}, 0.0, 1e11) as ports:
            near = socket.create_connection(("127.0.0.1", ports["one", "other"]))
            far, _ = server.accept()
            with near, far:
                near.settimeout(60)
                far.settimeout(60)
                thread = threading.Thread(target=near.sendall, args=(sent,))
                thread.start()
                time.sleep(0.2)
                got = bytearray()
                while len(got) < len(sent):
                    got += far.recv(1 << 20)
                thread.join()
    assert got == sent


def test_a_connection_that_breaks_ends_no_other(relay):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with relay.relayed({("one", "other"): port}, 0.001, 1e9) as ports:

            def connected():
                near = socket.create_connection(("127.0.0.1", ports["one", "other"]))
                far, _ = server.accept()
                near.settimeout(60)
                far.settimeout(60)
                return near, far

            near, far = connected()
            for number in range(4):
                broken = connected()
                for sock in broken:
                    sock.sendall(bytes(1 << 16))
                # Closed like this, a socket resets its connection.
                broken[number % 2].setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                broken[number % 2].close()
                near.sendall(b"ping")
                assert far.recv(4) == b"ping"
                broken[1 - number % 2].close()
                far.sendall(b"pong")
                assert near.recv(4) == b"pong"
            near.close()
            assert far.recv(1) == b""
            far.close()


def test_what_a_relay_refuses(relay):
    for round_trip, bandwidth in ((-1, 1e9), (0.1, 0), (float("nan"), 1e9)):
        with pytest.raises(ValueError, match="round_trip must not be negative"):
            relay.Relay([], round_trip, bandwidth)


def test_slow_networks_are_measured_beside_their_floor(benchmark, monkeypatch):
    slow = benchmark("slow_networks")
    monkeypatch.setattr(slow, "ROUND_TRIPS", (0.01,))
    monkeypatch.setattr(slow, "BANDWIDTHS", (1e8,))
    monkeypatch.setattr(slow, "ROWS", (1,))
    result = slow.run(turns=2, repeats=2)
    assert json.loads(json.dumps(result))["rows"] == result["rows"]
    (row,) = result["rows"]
    # Two rounds a ReLU pay there.
    assert (row["rounds"], row["trips"]) == (8, 6)
    assert len(row["seconds"]) == 4
    # Nobody can be quicker than the messages that wait for one another.
    assert min(row["seconds"]) >= row["trips"] * 0.01 / 2
    assert row["measured_round_trip"] >= 0.01
    rest = 8 * row["wire_received"] / 1e8 + row["local"]
    for name, count in (("trip", 6), ("round", 8)):
        expected = count * row["measured_round_trip"] / 2 + rest
        assert row[f"{name}_floor"] == pytest.approx(expected)
    assert len(slow.rows_of(result)) == 2


def test_processes_are_measured_beside_a_local_session(benchmark):
    processes = benchmark("processes")
    result = processes.run((1, 70), turns=1, repeats=2)
    assert [batch["rows"] for batch in result["batches"]] == [1, 70]
    for batch in result["batches"]:
        assert (batch["rounds"], batch["trips"]) == (10, 10)
        (ratio,) = batch["ratios"]
        medians = batch["medians"]
        assert ratio == pytest.approx(medians["processes"][0] / medians["local"][0])
    assert len(processes.rows_of(json.loads(json.dumps(result)))) == 3
