"""parties.toml: the example works, and what is wrong is named with its line."""

import socket
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization

import mpc
from mpc.parties import configuration
from mpc.parties.handshake import client_terms, disagreement, terms
from mpc.parties.tls import own_contexts
from mpc.transport import addresses
from mpc.transport.certificates import make_certificate
from nn.command import main
from tests.helpers.processes import has_ipv6
from tests.helpers.services import ROOT


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
        ("bob.crt", "bob.key", 'certificate = "bob.key"', "holds a private key"),
        ("bob.crt", "parties.toml", "parties.toml", "holds no PEM certificate"),
        (
            '"bob.crt"',
            '"bob.crt"\nsuccessor = "bob.crt"',
            "successor",
            "successor is its certificate",
        ),
        (
            "127.0.0.1:9002",
            "https://b.example:9002",
            "https",
            "no URL: leave out what stands before",
        ),
        (
            "127.0.0.1:9002",
            "0.0.0.0:9002",
            "0.0.0.0",
            'nobody can reach 0.0.0.0.*listen = "0.0.0.0',
        ),
        ("127.0.0.1:9002", "[::]:9002", "[::]", "nobody can reach ::"),
        (
            "127.0.0.1:9002",
            "::1:9002",
            "::1",
            "an IPv6 address, and nothing else, stands in brackets",
        ),
        ("127.0.0.1:9002", "[b.example]:9002", "[b.example]", "b.example is no IPv6 address"),
        ("127.0.0.1:9002", "127.0.0.300:9002", ".300", "127.0.0.300 is no IPv4 address"),
        ("127.0.0.1:9002", "a b:9002", "a b", "'a b' is no name of a host"),
        ('"bob.crt"', '"bob.crt"\nlisten = "9002"', "listen", 'listen must be "host:port"'),
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
        ("[format]", "[network]\nround_trip = 0.02\n[format]", "[network]", "needs megabits = "),
        (
            "[format]",
            "[network]\nround_trip = 0.02\nmegabits = 0\n[format]",
            "megabits",
            "megabits must be a positive number of Mbit/s, got 0",
        ),
        (
            "[format]",
            "[network]\nround_trip = -1\nmegabits = 10\n[format]",
            "round_trip",
            "round_trip must be a positive number of seconds, got -1",
        ),
        ("[format]", "[network]\nbandwidth = 5\n[format]", "bandwidth", "no 'bandwidth' goes here"),
        (
            "[format]",
            "[network]\nmeasure = 1\n[format]",
            "measure",
            "measure must be true or false",
        ),
        (
            "[format]",
            "[network]\nmeasure = true\nmegabits = 5\n[format]",
            "measure",
            "measure = true and megabits = ... exclude each other",
        ),
        ("[format]", "[auditor]\nrate = 2\n[format]", "rate", "above 0 and at most 1, got 2"),
        ("[format]", "[auditor]\nrating = 1\n[format]", "rating", "no 'rating' goes here"),
        ("[format]", "[auditor]\nrate = 1\n[format]", "[auditor]", "auditor needs certificate = "),
        *(
            ("[clients.carol]", f"[clients.carol]\n{key} = {value}", key, message)
            for key, value, message in (
                ("trusted", '"yes"', "trusted must be true or false, got 'yes'"),
                ("trusted", "1", "trusted must be true or false, got 1"),
                ("rows_an_hour", "0", "rows_an_hour must be a whole number of at least 1, got 0"),
                ("requests_an_hour", "true", "requests_an_hour must be a whole number"),
                ("connections", "5", "no 'connections' goes here"),
            )
        ),
        ("[parties.bob]", "[parties.bob]\ntrusted = true", "trusted", "no 'trusted' goes here"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(example, old, new, line, message):
    text = example.read_text().replace(old, new, 1)
    example.write_text(text)
    with pytest.raises(mpc.ConfigurationError, match=message) as caught:
        configuration.load(example)
    rows = [n for n, row in enumerate(text.splitlines(), start=1) if line in row]
    assert any(f"line {n}" in str(caught.value) for n in [*rows, *(n + 1 for n in rows)])


def test_the_network_is_stated_by_all(example):
    read = configuration.load(example)
    assert read.network is None
    example.write_text(example.read_text() + "[network]\nround_trip = 0.02\nmegabits = 100\n")
    stated = configuration.load(example)
    assert stated.network == mpc.Network(0.02, 100)
    assert disagreement("alice", terms(read, None), "bob", terms(stated, None)) == (
        "alice and bob disagree on network: alice has 'none', bob has '0.02 s, 100.0 Mbit/s'"
    )
    # A client needs none.
    assert client_terms(read) == client_terms(stated)


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
    with pytest.raises(mpc.ArgumentError, match=r"goes into .*, as \[network\]"):
        mpc.Session(example, me="alice", network=mpc.Network(0.02, 100))
    with pytest.raises(mpc.DtypeError, match="goes with me="):
        mpc.Session(example)
    with pytest.raises(mpc.DtypeError, match="path of a configuration"):
        mpc.Session(("alice", "bob"), me="alice")


def test_commands(tmp_path, capsys):
    folder = str(tmp_path / "trial")
    assert main(["init", folder, "--parties", "ann,ben,cy", "--clients", ""]) == 0
    assert main(["check", f"{folder}/parties.toml", "--me", "ann"]) == 0
    assert "ann, ben, cy" in capsys.readouterr().out
    assert main(["init", folder]) == 78
    assert main(["check", f"{folder}/nothing.toml"]) == 78
    assert "cannot be read" in capsys.readouterr().err


def test_a_mark_at_the_beginning_is_no_part_of_the_text(example):
    example.write_bytes(b"\xef\xbb\xbf" + example.read_bytes())
    assert configuration.load(example).names == ("alice", "bob")
    example.write_text(example.read_text("utf-8-sig"), "utf-16")
    with pytest.raises(mpc.ConfigurationError, match="must be text in UTF-8, got UTF-16"):
        configuration.load(example)


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody(example):
    key = example.parent / "alice.key"
    form = serialization
    secret = form.load_pem_private_key(key.read_bytes(), None)
    how = form.BestAvailableEncryption(b"secret")
    key.write_bytes(secret.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, how))
    code = (
        "import sys; from mpc.parties import configuration; from mpc.parties.tls import own_contexts;"
        "own_contexts(configuration.load(sys.argv[1]), 'alice')"
    )
    run = [sys.executable, "-c", code, example]
    # Without a terminal to ask at: one that asks ends with another error.
    done = subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    (last,) = done.stderr.splitlines()[-1:]
    assert "passphrase" in last and "openssl pkey -in" in last and "belong" not in last
    # The way out, as it is told.
    command = last.partition("(")[2].rpartition(")")[0].replace("NEW.key", f"{key}.new")
    openssl = subprocess.run(
        command.replace("-out", "-passin pass:secret -out"), shell=True, check=False
    )
    if openssl.returncode == 127:
        pytest.skip("no openssl")
    key.with_name("alice.key.new").rename(key)
    own_contexts(configuration.load(example), "alice")


def test_addresses():
    for text, address in {
        "127.0.0.1:9001": ("127.0.0.1", 9001),
        "[::1]:9001": ("::1", 9001),
        "party-1.example.org:65535": ("party-1.example.org", 65535),
        "b\u00fccher.example:1": ("b\u00fccher.example", 1),
        "alice_1:9001": ("alice_1", 9001),
    }.items():
        assert addresses.parse(text) == address
        assert addresses.show(address) == text
    for text in (
        "",
        "9001",
        ":9001",
        "a:0",
        "a:65536",
        "a:\u0661",
        "a:-1",
        "-a:1",
        "[]:1",
        "a..b:1",
    ):
        with pytest.raises(mpc.ConfigurationError, match="address must be"):
            addresses.parse(text)


@pytest.mark.parametrize(
    ("listen", "reached"),
    [("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1"]), ("::", ["127.0.0.1", "::1"]),
     ("0.0.0.0", ["127.0.0.1"])],
)  # fmt: skip
def test_where_one_listens_others_reach_it(listen, reached):
    if ":" in listen and not has_ipv6():
        pytest.skip("no IPv6 here")
    with addresses.bind((listen, 0)) as sock:
        for host in reached:
            socket.create_connection((host, sock.getsockname()[1]), timeout=5).close()
        with pytest.raises(mpc.ConfigurationError, match="cannot listen at.*in use"):
            addresses.bind(sock.getsockname()[:2])
    with pytest.raises(mpc.ConfigurationError, match=r"cannot listen at \[2001:db8::1\]:9001"):
        addresses.bind(("2001:db8::1", 9001))


def test_listening_apart_from_the_address(example):
    text = example.read_text()
    example.write_text(text.replace(':9001"', ':9001"\nlisten = "[::]:8000"'))
    alice, bob = configuration.load(example).parties.values()
    assert (alice.address, alice.listen) == (("127.0.0.1", 9001), ("::", 8000))
    assert bob.listen == bob.address


def test_a_client_may_be_trusted_and_have_limits_of_its_own(example):
    text = example.read_text()
    read = configuration.load(example)
    assert not read.clients["carol"].trusted and read.checks_rows
    assert read.limits_of("carol") == read.limits
    own = "[clients.carol]\ntrusted = true\nrequests_an_hour = 5"
    example.write_text(text.replace("[clients.carol]", own) + "[limits]\nrows_an_hour = 70\n")
    read = configuration.load(example)
    assert read.clients["carol"].trusted and not read.checks_rows
    limits = read.limits_of("carol")
    assert (limits.requests_an_hour, limits.rows_an_hour) == (5, 70)
    assert read.limits.requests_an_hour > 5
