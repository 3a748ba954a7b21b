"""Processes that die, stall or are slow: whoever is left says so, and the next run works.

Which process is killed when is drawn from a seed, which a failure shows: SOTTO_SEED sets it, and
SOTTO_KILLS the number of strikes (56: the whole campaign, some minutes).
"""

import os
import random
import signal
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.core import frames, wire
from mpc.core.frames import Kind
from mpc.launch import start
from mpc.parties import configuration
from mpc.parties.handshake import read_hello, send_hello, terms
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import exchange
from tests.helpers import programs
from tests.helpers.services import MODELS, Services

KILLS = int(os.environ.get("SOTTO_KILLS", "5"))
SEED = int(os.environ.get("SOTTO_SEED", str(random.SystemRandom().randrange(10**6))))
X = np.random.default_rng(8).random((5, 64))
# Longer than any time that a party waits: 3 s for the provider, 5 s for one another.
WITHIN = 45
ANSWER = 3
CLIENTS = ("dora", "erin", "frank")


@pytest.fixture(scope="module", params=[("alice", "bob"), ("alice", "bob", "carol")], ids=len)
def services(request, tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("faults"),
        {"network": MODELS["network"]},
        workers=1,
        answer=ANSWER,
        connect=60,
        parties=request.param,
        clients=CLIENTS,
    )
    yield running
    left = running.stop()
    assert not left, left


def works(services):
    """Ask as a client that has seen nothing of what happened."""
    with nn.Client(services.path, me="dora", model="network", patience=WITHIN) as client:
        np.testing.assert_array_equal(client.predict(X), programs.network().predict(X))


def strike(services, victim, how, after, pause):
    """Kill, stop or terminate one service; start or continue it alone. Return seconds until all is well."""
    others = [name for name in services.logs if name != victim]
    before = {name: len(services.lines(name, "lost")) for name in others}
    time.sleep(after)
    process = services.processes[victim]
    if how == "kill":
        services.kill(victim)
    elif how == "terminate":
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 0, "was told to stop, and did not end well"
    else:
        process.send_signal(signal.SIGSTOP)
    time.sleep(pause)
    if how == "stop":
        process.send_signal(signal.SIGCONT)
    else:
        services.start(victim)
    begin = time.monotonic()
    works(services)
    seconds = time.monotonic() - begin
    for name in services.logs:
        assert services.processes[name].poll() is None, f"{name} has ended too"
    lost = [line for name in others for line in services.lines(name, "lost")[before[name] :]]
    for line in lost:
        if " me=" in line or "me=" in line:
            assert victim in line.partition("why=")[2], line
    if how != "stop":
        parties = [name for name in others if name in services.parties]
        assert len([line for line in lost if "me=" in line]) >= len(parties), lost
    return seconds


WAYS = ("kill", "terminate", "stop")


def test_services_come_back_whatever_is_done_to_one_of_them_under_load(services, capsys):
    """Nothing but the victim is started again, no answer is wrong, and nobody else is blamed."""
    draw = random.Random(SEED)
    works(services)
    load = services.load("frank")
    cases = [(victim, how) for victim in services.logs for how in WAYS]
    seconds, stopped = {how: [] for how in WAYS}, set()
    for number in range(KILLS):
        if number % len(cases) == 0:
            draw.shuffle(cases)
        victim, how = cases[number % len(cases)]
        if how == "stop":
            stopped.add(victim)
        after = draw.uniform(0, 0.5)
        pause = draw.uniform(0, 2.5 * ANSWER if how == "stop" else 1.0)
        try:
            seconds[how].append(strike(services, victim, how, after, pause))
            assert load.poll() is None, f"the clients have ended: {load.stdout.read()}"
        except Exception as error:
            told = "".join(f"\n{name}: {services.told(name)[-1500:]}" for name in services.logs)
            raise AssertionError(
                f"SOTTO_SEED={SEED}, strike {number + 1}: {how} {victim} after {after:.3f} s,"
                f" for {pause:.3f} s: {error}{told}"
            ) from error
    load.stdin.close()
    told = load.stdout.read().splitlines()
    assert load.wait(WITHIN) == 0
    assert int(told[-1].removeprefix("answered ")) > 0
    # Clients try again until all is well; only who waits for an answer of a stopped party gives up.
    for line in told[:-1]:
        case = f"SOTTO_SEED={SEED}: {line}"
        assert line.startswith("PeerTimeoutError") or "did not answer" in line, case
        assert any(name in line for name in stopped), case
    with capsys.disabled():
        if KILLS >= 20:
            print(f"\nSOTTO_SEED={SEED}, {len(services.parties)} parties:", end=" ")
            print(f"{told[-1]}, {len(told) - 1} errors; seconds until back")
            for how, found in seconds.items():
                print(
                    f"  {how}: {len(found)}, median {np.median(found):.2f}, most {max(found):.2f}"
                )


def test_a_client_that_is_killed_disturbs_nobody(services):
    client = services.ask("erin")
    assert client.stdout.readline() == "ready\n"
    lost = [len(services.lines(name, "lost")) for name in services.parties]
    services.kill("erin")
    works(services)
    assert all(services.processes[name].poll() is None for name in services.logs)
    found = [
        line for name in services.parties for line in services.lines(name, "lost") if "me=" in line
    ]
    assert lost and all("erin" not in line for line in found)


def test_a_process_killed_while_all_start_is_waited_for(services):
    draw = random.Random(SEED + 1)
    for victim in draw.sample(list(services.logs), 1 if KILLS < 20 else 3):
        after = draw.uniform(0, 2.5)
        for name in services.logs:
            services.kill(name)
            services.start(name)
        time.sleep(after)
        services.kill(victim)
        time.sleep(draw.uniform(0, 1))
        services.start(victim)
        works(services)
        for name in services.logs:
            assert services.processes[name].poll() is None, (SEED, victim, after, name)


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


@pytest.mark.parametrize("victim", ["provider", "alice"] if KILLS >= 56 else ["provider"])
def test_whoever_ends_between_an_opening_and_its_correction_is_named(victim, tmp_path):
    names = ("alice", "bob")
    with pytest.raises(mpc.LaunchError) as caught:
        start(
            lambda _: programs.StruckBetween(victim, tmp_path),
            names, timeout=60, answer_timeout=20,
        )  # fmt: skip
    assert caught.value.errors[victim] == "the process ended with exit code -9"
    told = {name: (tmp_path / name).read_text() for name in names if (tmp_path / name).exists()}
    assert set(told) == {*names} - {victim}
    for text in told.values():
        assert victim in text, told
        assert "in round" in text, told


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
        # Half of a request.
        call = wire.encode(("predict", b"s" * 16, "network", b"", "class", 2))
        if connection is stalled[-1]:
            connection.post_bytes(Kind.CALL, call)
            head = frames.pack(Kind.SHARE, 2, 0, True, [(2, 64)])
        else:
            head = frames.pack(Kind.CALL, 1, 0, False, [(len(call) + 18,)])
        connection.post_raw(head + b"half", [])
        connection.push()
    for _ in range(3):
        works(services)
    end = time.monotonic() + WITHIN
    for name, connection in zip(services.parties, stalled, strict=True):
        connection.expect_bytes([Kind.ANSWER], 1000)
        with pytest.raises(mpc.PeerError, match=f"{name} stopped: erin did not answer within 3 s"):
            exchange([connection], max(1, end - time.monotonic()))
        connection.close()
        assert services.lines(name, "lost")
    works(services)
