"""parties.toml: the example works, and what is wrong is named with its line."""

import stat

import pytest

import mpc
from mpc import configuration
from mpc.transport.certificates import make_certificate
from mpc.transport.tls import own_contexts
from nn.command import main


@pytest.fixture
def example(tmp_path):
    return configuration.write_example(tmp_path / "trial")


def test_the_example_is_complete(example):
    read = configuration.load(example)
    assert read.names == ("alice", "bob")
    assert set(read.clients) == {"carol"}
    assert read.format.frac_bits == 16
    for name in read.members:
        own_contexts(read, name)
        assert stat.S_IMODE((example.parent / f"{name}.key").stat().st_mode) == 0o600


def test_the_example_is_not_overwritten(example):
    with pytest.raises(mpc.ConfigurationError, match="exists already"):
        configuration.write_example(example.parent)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("answer = 60", 'answer = "x"', "answer =", "answer must be a positive number"),
        ("answer = 60", "answer = -1", "answer =", "answer must be a positive number"),
        ("idle = 3600", "idel = 3600", "idel", "no 'idel' goes here"),
        ("int_bits = 15", "int_bits = 40", "[format]", "2 \\* frac_bits"),
        ("127.0.0.1:9002", "127.0.0.1:9001", "127.0.0.1:9001", "bob has the address of alice"),
        ("127.0.0.1:9002", "127.0.0.1:99999", ":99999", "address must be"),
        ("127.0.0.1:9002", "localhost", '"localhost"', "address must be"),
        ("bob.crt", "none.crt", "none.crt", "cannot be read"),
        ("bob.crt", "bob.key", 'certificate = "bob.key"', "holds no PEM certificate"),
        ("bob.crt", "alice.crt", 'certificate = "alice.crt"', "bob has the certificate of alice"),
        ("[parties.bob]", '[parties."b b"]', '[parties."b b"]', "a name must have letters"),
        ("[clients.carol]", "[clients.bob]", "[clients.bob]", "bob is a party already"),
        ("[format]", "[format", "[format", "at line"),
        (
            "[format]",
            "[limits]\nrequests = 0\n[format]",
            "requests",
            "a whole number of at least 1",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(example, old, new, line, message):
    text = example.read_text().replace(old, new, 1)
    example.write_text(text)
    with pytest.raises(mpc.ConfigurationError, match=message) as caught:
        configuration.load(example)
    rows = [n for n, row in enumerate(text.splitlines(), start=1) if line in row]
    assert any(f"line {n}" in str(caught.value) for n in [*rows, *(n + 1 for n in rows)])


def test_keys_must_be_private_and_belong_to_the_certificate(example):
    read = configuration.load(example)
    key = example.parent / "alice.key"
    key.chmod(0o644)
    with pytest.raises(mpc.ConfigurationError, match="mode 644.*chmod 600"):
        own_contexts(read, "alice")
    key.unlink()
    make_certificate("other", example.parent / "other.crt", key)
    with pytest.raises(mpc.ConfigurationError, match="do not belong together"):
        own_contexts(read, "alice")


def test_sessions_say_what_they_need(example):
    with pytest.raises(mpc.PartyError, match="me must be one of alice, bob, got 'eve'"):
        mpc.Session(example, me="eve")
    with pytest.raises(mpc.ArgumentError, match="go into"):
        mpc.Session(example, me="alice", frac_bits=12)
    with pytest.raises(mpc.DtypeError, match="goes with me="):
        mpc.Session(example)
    with pytest.raises(mpc.DtypeError, match="path of a configuration"):
        mpc.Session(("alice", "bob"), me="alice")


def test_commands(tmp_path, capsys):
    folder = str(tmp_path / "trial")
    assert main(["init", folder, "--parties", "ann,ben,cy", "--clients", ""]) == 0
    assert main(["check", f"{folder}/parties.toml", "--me", "ann"]) == 0
    assert "ann, ben, cy" in capsys.readouterr().out
    assert main(["init", folder]) == 2
    assert main(["check", f"{folder}/nothing.toml"]) == 2
    assert "cannot be read" in capsys.readouterr().err
