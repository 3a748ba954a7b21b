"""`sotto health`: what services say of themselves, and who does not answer."""

import itertools
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.parties import configuration
from mpc.parties.handshake import SESSION, read_hello, send_hello
from mpc.parties.health import ask
from mpc.parties.tls import connect, own_contexts
from nn.command import main
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, ROOT, Services

X = np.random.default_rng(9).random((3, 64))


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("health"), {"network": MODELS["network"]}, workers=1, answer=6
    )
    yield running
    assert not running.stop()


def predict(services):
    with nn.Client(services.path, me="carol") as client:
        np.testing.assert_array_equal(client.predict(X), network().predict(X))


def health(services, capsys, me, seconds=5):
    """Return the exit code and the lines behind the head, cut at the columns of the head."""
    arguments = ["health", str(services.path), "--me", me, "--timeout", str(seconds)]
    code = main(arguments)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["role", "name", "seconds", "up", "says"]
    at = [head.index(word) for word in ("name", "seconds", "says")]
    ends = [0, *at, None]
    return code, [tuple(line[a:b].strip() for a, b in itertools.pairwise(ends)) for line in lines]


def test_all_answer_whoever_asks(services, capsys):
    predict(services)
    for me in (*PARTIES, "provider", "carol"):
        code, lines = health(services, capsys, me)
        assert code == 0
        assert [line[:2] for line in lines] == [
            ("provider", "provider"), ("party", "alice"), ("party", "bob"),
        ]  # fmt: skip
        (_, _, up, says), *parties = lines
        if me == "carol":
            assert (up, says) == ("-", "not asked: the provider answers no clients")
        else:
            assert int(up) < 1000 and says == "sessions 1, served 0"
        for _, _, up, says in parties:
            digest = says.partition("digests network=")[2][:64]
            assert len(bytes.fromhex(digest)) == 32
            assert int(up) < 1000 and says == (
                f"state ready, models network, digests network={digest}, waiting 0, served 1"
            )
    # Those that asked have disturbed nobody.
    predict(services)
    assert all(services.processes[name].poll() is None for name in services.logs)


def test_as_a_command(services):
    command = [sys.executable, "-m", "nn.command", "health", str(services.path), "--me", "alice"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4


def test_who_stalls_or_is_gone_is_named_and_the_others_answer(services, capsys):
    bob = services.processes["bob"]
    bob.send_signal(signal.SIGSTOP)
    code, (provider, alice, stopped) = health(services, capsys, "alice", 5)
    bob.send_signal(signal.SIGCONT)
    assert code == 1
    assert provider[3] == "sessions 1, served 0"
    assert alice[3].startswith("state ready, models network")
    assert stopped[:3] == ("party", "bob", "-")
    assert stopped[3].startswith("bob at 127.0.0.1:") and stopped[3].endswith("within 5 s")
    services.kill("provider")
    code, (provider, *_) = health(services, capsys, "bob", 1)
    assert code == 1
    assert provider[3].startswith("provider at 127.0.0.1:")
    assert provider[3].endswith("did not accept a connection within 1 s")
    # Without a request that would have needed it, the parties miss it and say so.
    until(lambda: all("waits for provider" in line[3] for line in parties_of(services, capsys)))
    services.start("provider")
    predict(services)
    assert all(line[3].startswith("state ready") for line in parties_of(services, capsys))


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end


def parties_of(services, capsys):
    return health(services, capsys, "carol", 2)[1][1:]


def test_a_party_that_waits_for_another_says_so_and_goes_on_waiting(services, capsys):
    services.kill("bob")
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "bob")
    until(lambda: "waits for bob" in parties_of(services, capsys)[0][3])
    # Somebody with bob's key who goes without a word.
    connect(read.parties["alice"], context, 30).close()
    _, alice, bob = ask(read, "bob")
    assert alice.told["state"] == "alice waits for bob" and alice.told["models"] == ()
    assert "did not accept a connection" in bob.problem
    services.start("bob")
    until(lambda: health(services, capsys, "alice")[0] == 0)
    predict(services)


def test_the_provider_cannot_begin_a_session(services):
    read = configuration.load(services.path)
    for member in (read.provider, read.parties["alice"]):
        context, _ = own_contexts(read, "provider")
        connection = connect(member, context, 30)
        send_hello(connection, SESSION, {}, b"s" * 16)
        if member is read.provider:
            read_hello(connection, 30)  # which is said to everybody
        told = "health alone" if member is read.provider else "provider has no business here for"
        with pytest.raises(mpc.PeerError, match=told):
            read_hello(connection, 30)
        connection.close()
    predict(services)
    assert "provider is no computing party" in services.told("provider")
    assert "event=refused at=alice peer=provider" in services.told("alice")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--me", "nobody"], "me must be one of alice, bob, provider, carol, dora, erin"),
        (["--me", "alice", "--timeout", "0"], "--timeout must be a positive number of seconds"),
    ],
)
def test_mistakes(services, capsys, arguments, told):
    assert main(["health", str(services.path), *arguments]) in (2, 78)
    assert told in capsys.readouterr().err
