"""The relay does what is asked of it, and the benchmarks over processes and slow networks run."""

import json
import socket
import threading

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


def test_delay_and_bandwidth_are_no_less_than_asked(relay):
    round_trip, rate = relay.measured(0.02, 2e7)
    assert round_trip >= 0.02
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


def test_what_a_relay_refuses(relay):
    for round_trip, bandwidth in ((-1, 1e9), (0.1, 0), (float("nan"), 1e9)):
        with pytest.raises(ValueError, match="round_trip must not be negative"):
            relay.Relay([], round_trip, bandwidth)


def test_slow_networks_are_measured_beside_their_floor(benchmark, monkeypatch):
    slow = benchmark("slow_networks")
    monkeypatch.setattr(slow, "ROUND_TRIPS", (0.01,))
    monkeypatch.setattr(slow, "BANDWIDTHS", (1e8,))
    monkeypatch.setattr(slow, "ROWS", (1,))
    result = slow.run(repeats=2)
    assert json.loads(json.dumps(result))["rows"] == result["rows"]
    (row,) = result["rows"]
    assert row["rounds"] == 13
    # Nobody can be quicker than the messages that wait for one another.
    assert min(row["seconds"]) >= row["rounds"] * 0.01 / 2
    assert row["measured_round_trip"] >= 0.01
    expected = 13 * row["measured_round_trip"] + 8 * row["wire_received"] / 1e8 + row["local"]
    assert row["floor"] == pytest.approx(expected)
    assert len(slow.rows_of(result)) == 2


def test_processes_are_measured_beside_a_local_session(benchmark):
    processes = benchmark("processes")
    result = processes.run((1, 70), turns=1, repeats=2)
    assert [batch["rows"] for batch in result["batches"]] == [1, 70]
    for batch in result["batches"]:
        assert batch["rounds"] == 13
        (ratio,) = batch["ratios"]
        medians = batch["medians"]
        assert ratio == pytest.approx(medians["processes"][0] / medians["local"][0])
    assert len(processes.rows_of(json.loads(json.dumps(result)))) == 3
