"""Processes that die, stall or are slow: whoever is left says so, and the next run works.

Which process is killed when is drawn from a seed, which a failure shows: SOTTO_SEED sets it, and
SOTTO_KILLS the number of kills (56: the whole campaign, some minutes).
"""

import os
import random
import time

import numpy as np
import pytest

import mpc
import nn
from mpc import configuration
from mpc.handshake import read_hello, send_hello, terms
from mpc.launch import start
from mpc.transport import frames, wire
from mpc.transport.connection import exchange
from mpc.transport.frames import Kind
from mpc.transport.tls import connect, own_contexts
from tests.parties import programs
from tests.parties.services import MODELS, PARTIES, Services

KILLS = int(os.environ.get("SOTTO_KILLS", "5"))
SEED = int(os.environ.get("SOTTO_SEED", str(random.SystemRandom().randrange(10**6))))
X = np.random.default_rng(8).random((5, 64))
# Longer than any time that a party waits: 12 s for the provider, 15 s for one another.
WITHIN = 45


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("faults"),
        {"network": MODELS["network"]},
        workers=1,
        answer=12,
        connect=30,
    )
    yield running
    left = running.stop()
    assert not left, left


def works(services):
    """Ask as a client that has seen nothing of what happened."""
    with nn.Client(services.path, me="dora", model="network") as client:
        np.testing.assert_array_equal(client.predict(X), programs.network().predict(X))


def ended(process, what):
    """Wait for a process's end; return its exit code."""
    try:
        return process.wait(WITHIN)
    except Exception:
        raise AssertionError(f"{what} is still there after {WITHIN} s") from None


def strike(services, victim, after):
    """Kill a process while a client asks; check what all others do; make all whole again."""
    client = services.ask("carol")
    assert client.stdout.readline() == "ready\n"
    time.sleep(after)
    services.kill(victim)
    if victim == "carol":
        assert all(services.processes[name].poll() is None for name in services.logs)
        works(services)
        return
    assert ended(client, "the client") == 3
    told = client.stdout.read()
    assert any(name in told for name in PARTIES), told
    for name in PARTIES:
        if name == victim:
            continue
        assert ended(services.processes[name], name) == 2, services.told(name)
        last = services.told(name).splitlines()[-1]
        assert victim in last, last
        assert "in round" in last, last
    if victim != "provider":
        assert services.processes["provider"].poll() is None
    for name in services.logs:
        if services.processes[name].poll() is not None:
            services.start(name)
    works(services)


def strike_at_start(services, victim, after):
    """Kill a process while all start; the others wait for it, or end and say whom they lost."""
    for name in services.logs:
        services.kill(name)
        services.start(name)
    time.sleep(after)
    services.kill(victim)
    time.sleep(0.5)
    services.start(victim)
    end = time.monotonic() + 120
    while True:
        for name in services.logs:
            process = services.processes[name]
            if process.poll() is not None:
                assert process.returncode == 2, services.told(name)
                last = services.told(name).splitlines()[-1]
                assert any(other in last for other in services.logs if other != name), last
                services.start(name)
        # No client before both serve: it would wait as long as they do for one another, and whoever
        # has given up would be started again only then.
        if all("event=start role=party" in services.told(name) for name in PARTIES):
            try:
                return works(services)
            except mpc.PeerError:
                pass
        assert time.monotonic() < end, {name: services.told(name) for name in services.logs}
        time.sleep(0.1)


def test_processes_killed_at_any_moment(services):
    draw = random.Random(SEED)
    works(services)
    for number in range(KILLS):
        # A client's death costs nobody a restart: more of these.
        victim = draw.choice(["carol", "carol", "alice", "bob", "provider"])
        at_start = victim != "carol" and draw.random() < 0.3
        after = draw.uniform(0, 2.5 if at_start else 0.5)
        try:
            (strike_at_start if at_start else strike)(services, victim, after)
        except Exception as error:
            told = "".join(f"\n{name}: {services.told(name)[-600:]}" for name in services.logs)
            raise AssertionError(
                f"SOTTO_SEED={SEED}, kill {number + 1}: {victim} after {after:.3f} s"
                f"{' of the start' if at_start else ''}: {error}{told}"
            ) from error


def launched(victim, number, after, folder, names, warm=False):
    with pytest.raises(mpc.LaunchError) as caught:
        start(
            lambda _: programs.Struck(victim, number, after, folder, warm),
            names, timeout=60, answer_timeout=3,
        )  # fmt: skip
    return caught.value, {
        name: (folder / name).read_text() for name in names if (folder / name).exists()
    }


def test_a_launch_with_a_process_killed_names_it(tmp_path):
    draw = random.Random(SEED)
    for number in range(max(2, KILLS // 4)):
        names = ("alice", "bob", "carol")[: draw.choice([2, 3])]
        victim = draw.choice([*names, "provider"])
        after, folder = draw.uniform(0, 2.5), tmp_path / str(number)
        folder.mkdir()
        error, told = launched(victim, programs.KILL, after, folder, names)
        case = (
            f"SOTTO_SEED={SEED}, launch {number + 1}: {victim} after {after:.3f} s: {error} {told}"
        )
        assert error.errors[victim] == "the process ended with exit code -9", case
        assert str(error).startswith(f"{victim}: "), case
        assert set(error.errors) - {victim} <= {*names}, case
        # Those that have met are told, or notice; those that have not are ended.
        assert all(victim in text for text in told.values()), case
        assert not programs.children("spawn_main"), case


STALLS = [("provider", ("alice", "bob")), ("carol", ("alice", "bob", "carol"))]
if KILLS >= 56:
    STALLS += [("alice", ("alice", "bob")), ("provider", ("alice", "bob", "carol"))]


@pytest.mark.parametrize(("victim", "names"), STALLS)
def test_whoever_stalls_is_named_by_all_others(victim, names, tmp_path):
    _, told = launched(victim, programs.STOP, 0.3, tmp_path, names, warm=True)
    assert set(told) == set(names) - {victim}
    for text in told.values():
        assert f"{victim} did not answer within" in text, told
        assert "in round" in text


def test_a_slow_provider_is_waited_for_and_the_wait_is_reported(tmp_path):
    found = start(lambda _: programs.Slow(tmp_path / "pid", 2.0), ("alice", "bob"))
    assert found["alice"][0] == found["bob"][0] == 1000.0
    waits = [m for m in found["bob"][1] if m.startswith("event=waiting peer=provider")]
    assert any(float(m.split("seconds=")[1].split()[0]) >= 1 for m in waits), found["bob"][1]
    assert "limit=60.000" in waits[0]


def test_a_client_that_stalls_disturbs_nobody_and_is_let_go(services):
    works(services)
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "erin")
    stalled = [connect(member, context, 30) for member in read.parties.values()]
    for connection in stalled:
        mine = {name: v for name, v in terms(read, None).items() if name != "program"}
        send_hello(connection, "predict", mine, b"")
        read_hello(connection, 30)
        # A request, and half of what should come with it.
        connection.post_bytes(Kind.CALL, wire.encode(("predict", b"s" * 16, "network", "class", 2)))
        words = connection is stalled[-1]
        head = frames.pack(Kind.SHARE, 2, 0, words, [(2, 64) if words else (16,)])
        connection._line_up(head + b"half", [])
        connection.push()
    for _ in range(3):
        works(services)
    end = time.monotonic() + WITHIN
    for name, connection in zip(PARTIES, stalled, strict=True):
        connection.expect_bytes([Kind.ANSWER], 1000)
        with pytest.raises(mpc.PeerError, match=f"{name} stopped: erin did not answer within 12 s"):
            exchange([connection], max(1, end - time.monotonic()))
        connection.close()
        assert "event=lost" in services.told(name)
    works(services)


def test_a_party_that_stalls_is_named_by_the_service_and_to_the_client(services):
    client = services.ask("carol")
    assert client.stdout.readline() == "ready\n"
    services.processes["alice"].send_signal(programs.STOP)
    assert ended(services.processes["bob"], "bob") == 2
    assert "alice did not answer within 15 s in round" in services.told("bob")
    assert ended(client, "the client") == 3
    assert "alice" in client.stdout.read()
    services.kill("alice")
    for name in PARTIES:
        services.start(name)
    works(services)
