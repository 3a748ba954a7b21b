"""Certificates: their lifetime, their successors, and whom an expired one stops."""

import queue
import ssl
import stat
import subprocess
import time
from datetime import UTC, datetime

import numpy as np
import pytest

import mpc
import nn
from mpc.parties import configuration
from mpc.parties.expiry import watch_certificates
from mpc.parties.handshake import read_hello
from mpc.parties.tls import connect, own_contexts
from mpc.transport.addresses import bind
from mpc.transport.certificates import load_certificate, make_certificate
from mpc.transport.listener import Listener
from nn.command import main
from tests.helpers.dates import redate
from tests.helpers.ports import free_ports
from tests.helpers.processes import has_ipv6
from tests.helpers.programs import network
from tests.helpers.services import MODELS, Services


@pytest.fixture
def example(tmp_path):
    return configuration.write_example(tmp_path / "trial", ports=free_ports(3))


def expire(example, name, begin=-10, end=-1):
    redate(example.parent / f"{name}.crt", example.parent / f"{name}.key", begin, end)


def add_successor(example, name):
    """Give a member a second certificate in everybody's file."""
    new = example.parent / f"{name}-2"
    make_certificate(name, new.with_suffix(".crt"), new.with_suffix(".key"))
    line = f'certificate = "{name}.crt"'
    text = example.read_text().replace(line, f'{line}\nsuccessor = "{name}-2.crt"')
    example.write_text(text)


def own_copy(example, name, key):
    """Return a member's own copy of the file, with another key."""
    path = example.parent / f"parties of {name}.toml"
    path.write_text(example.read_text().replace(f'"{name}.key"', f'"{key}"'))
    return path


class Door:
    """Alice's listener, and everybody who comes."""

    def __init__(self, example, context=None):
        self.read = configuration.load(example)
        server = context or own_contexts(self.read, "alice")[1]
        sock = bind(self.read.parties["alice"].listen)
        self.came = queue.SimpleQueue()
        self.listener = Listener("alice", sock, server, self.read.certificates(), self._take)
        self.listener.start()

    def _take(self, connection):
        self.came.put(connection.peer)
        connection.expect_bytes([], 0)
        yield 1e9

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def comes(self, path, me):
        """Connect as somebody, by a file of its own; return as whom it got in, or why not."""
        read = configuration.load(path)
        context, _ = own_contexts(read, me)
        try:
            connection = connect(read.parties["alice"], context, 30)
        except mpc.PeerError as error:
            return str(error)
        try:
            return self.came.get(timeout=30)
        finally:
            connection.close()


def test_a_certificate_says_whose_it_is_and_for_how_long(tmp_path):
    paths = tmp_path / "a.crt", tmp_path / "a.key"
    made = make_certificate("alice", *paths, days=40, address="[::1]:9001")
    read = load_certificate(paths[0])
    assert made == read and (read.name, read.address) == ("alice", "[::1]:9001")
    assert 39.9 < read.days_left <= 40 and not read.problem and not read.warning
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o644, 0o600]
    openssl = ["openssl", "x509", "-in", paths[0], "-noout", "-fingerprint", "-sha256"]
    try:
        told = subprocess.run(openssl, capture_output=True, text=True, check=True).stdout
        assert told.strip().partition("=")[2] == read.fingerprint
    except FileNotFoundError:
        pass
    assert read.fits(read.fingerprint.lower().replace(":", " "))
    assert not read.fits(read.fingerprint[:-1]) and not read.fits("")


@pytest.mark.parametrize("there", ["a.crt", "a.key"])
def test_both_files_are_written_or_none(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(mpc.ConfigurationError, match=f"{there} exists already"):
        make_certificate("alice", tmp_path / "a.crt", tmp_path / "a.key")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_times_are_told_to_the_minute_with_the_own_clock(example):
    expire(example, "alice", 2 / 24, 300)
    with pytest.raises(mpc.ConfigurationError) as caught:
        own_contexts(configuration.load(example), "alice")
    begin = configuration.load(example).parties["alice"].certificates[0].begin
    assert f"is valid from {begin:%Y-%m-%d %H:%M} UTC on, and by this machine's clock it is" in str(
        caught.value
    )
    told = str(caught.value).partition("clock it is ")[2].partition(" UTC")[0]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(f"{told}+00:00")).total_seconds() < 120
    assert "the clock that is wrong" in str(caught.value)
    # One whose clock is two hours ahead of the others' makes one that they can use at once.
    made = make_certificate("eve", example.parent / "eve.crt", example.parent / "eve.key")
    assert (datetime.now(UTC) - made.begin).total_seconds() > 2 * 3600


def test_an_expired_certificate_stops_its_owner_alone(example):
    expire(example, "carol")
    read = configuration.load(example)
    for name in ("alice", "bob", "provider"):
        own_contexts(read, name)
    with pytest.raises(mpc.ConfigurationError, match=r"carol\.crt expired at .* UTC, and by this"):
        own_contexts(read, "carol")


@pytest.mark.parametrize(("begin", "end", "why"), [(-9, -1, "expired"), (1, 9, "not yet valid")])
def test_what_has_expired_is_found_out_at_the_door(example, begin, end, why, caplog):
    # As it is when it expires while the services run: nobody has looked at the files again.
    with Door(example) as door:
        contexts = {name: own_contexts(door.read, name)[0] for name in ("bob", "carol")}
        assert door.comes(example, "carol") == "carol"
    expire(example, "carol", begin, end)
    with Door(example) as door:
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.check_hostname = False
        plain.load_verify_locations(cadata=door.read.parties["alice"].accepted[0])
        plain.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        plain.load_cert_chain(example.parent / "carol.crt", example.parent / "carol.key")
        connection = connect(door.read.parties["alice"], plain, 30)
        with pytest.raises(mpc.PeerError):
            read_hello(connection, 30)
        connection.close()
        assert door.came.empty()
        assert f"certificate {'has ' * (begin < 0)}{'is ' * (begin > 0)}{why}" in caplog.text
        connection = connect(door.read.parties["alice"], contexts["bob"], 30)
        assert door.came.get(timeout=30) == "bob"
        connection.close()


def test_a_service_whose_certificate_has_expired_is_not_taken_for_another(example):
    with Door(example) as door:
        expire(example, "alice")
        # The files are new, what is presented is the old one: another certificate.
        assert "has another certificate" in door.comes(example, "bob")
    # As it is when it expires while she runs.
    late = configuration.load(example)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(example.parent / "alice.crt", example.parent / "alice.key")
    with Door(example, context) as door:
        told = door.comes(example, "bob")
        assert "alice at 127.0.0.1" in told and "not valid now (certificate has expired)" in told
    with pytest.raises(mpc.ConfigurationError, match=r"alice\.crt expired"):
        own_contexts(late, "alice")


def test_renewal_both_are_accepted_and_its_owner_alone_decides(example):
    add_successor(example, "carol")
    add_successor(example, "alice")
    new_carol = own_copy(example, "carol", "carol-2.key")
    new_alice = own_copy(example, "alice", "alice-2.key")
    for path in (example, new_alice):
        with Door(path) as door:
            assert door.comes(example, "carol") == door.comes(new_carol, "carol") == "carol"
            assert door.comes(example, "bob") == "bob"
    # Then the old one runs out. Whoever presents the new one is served, and nothing is warned of.
    expire(example, "carol")
    read = configuration.load(example)
    assert read.warnings() == {}
    with pytest.raises(mpc.ConfigurationError, match=r"carol\.crt expired"):
        own_contexts(read, "carol")
    with Door(example) as door:
        assert door.comes(new_carol, "carol") == "carol"


def test_a_successor_is_nobody_elses(example):
    add_successor(example, "carol")
    line = 'certificate = "bob.crt"'
    text = example.read_text()
    example.write_text(text.replace(line, f'{line}\nsuccessor = "carol-2.crt"'))
    with pytest.raises(mpc.ConfigurationError, match="carol has the certificate of bob"):
        configuration.load(example)
    example.write_text(text.replace('"alice.key"', '"bob.key"'))
    with pytest.raises(mpc.ConfigurationError, match="do not belong together"):
        own_contexts(configuration.load(example), "alice")


def test_warnings_begin_thirty_days_before(example):
    assert configuration.load(example).warnings() == {}
    expire(example, "carol", -300, 29.5)
    expire(example, "bob", -300, 30.5)
    expire(example, "provider", -300, -2)
    warnings = configuration.load(example).warnings()
    assert set(warnings) == {"carol", "provider"}
    assert "carol's certificate" in warnings["carol"]
    assert "carol.crt expires in 29 days, at " in warnings["carol"]
    assert "provider.crt expired at " in warnings["provider"]


def test_what_is_no_certificate_of_one(example):
    path = example.parent / "bob.crt"
    own = path.read_bytes()
    path.write_bytes(own + (example.parent / "alice.crt").read_bytes())
    with pytest.raises(mpc.ConfigurationError, match="must hold one certificate, got 2"):
        load_certificate(path)
    path.write_bytes(own + (example.parent / "bob.key").read_bytes())
    with pytest.raises(mpc.ConfigurationError, match="holds a private key"):
        load_certificate(path)
    path.write_bytes(b"Subject: as some programs write it\n" + own)
    assert load_certificate(path).name == "bob"


def test_the_log_warns_at_the_start_and_again(example, caplog):
    expire(example, "carol", -300, 5)
    read = configuration.load(example)
    over = watch_certificates(lambda: read, every=0.01)
    end = time.monotonic() + 20
    while len(caplog.records) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    over.set()
    assert len(caplog.records) >= 3
    for record in caplog.records[:3]:
        assert record.levelname == "WARNING"
        assert "event=certificate of=carol" in record.message and "in 4 days" in record.message


def test_services_live_with_a_client_whose_certificate_has_expired(tmp_path, capsys):
    """And listen where they are told to, which is not where they are looked for."""

    def edit(path):
        expire(path, "erin")
        text = path.read_text()
        for name, member in configuration.load(path).parties.items():
            _, port = member.address
            listen = "[::]" if has_ipv6() and name == "alice" else "0.0.0.0"
            line = f'address = "127.0.0.1:{port}"'
            text = text.replace(line, f'{line}\nlisten = "{listen}:{port}"')
        if has_ipv6():
            head, mark, rest = text.partition("[provider]")
            text = head + mark + rest.replace("127.0.0.1", "[::1]", 1)
        path.write_text(text)

    services = Services(tmp_path, {"network": MODELS["network"]}, workers=1, edit=edit)
    try:
        if has_ipv6():
            port = configuration.load(services.path).parties["alice"].listen[1]
            mine = tmp_path / "trial" / "by IPv6.toml"
            text = services.path.read_text().replace(f"127.0.0.1:{port}", f"[::1]:{port}")
            mine.write_text(text)
            nn.Client(mine, me="dora").close()
        with nn.Client(services.path, me="carol") as client:
            x = np.random.default_rng(1).random((3, 64))
            np.testing.assert_array_equal(client.predict(x), network().predict(x))
            assert main(["health", str(services.path), "--me", "dora"]) == 0
            assert "warning: erin's certificate" in (told := capsys.readouterr()).err
            assert "models network" in told.out
            with pytest.raises(mpc.ConfigurationError, match=r"erin\.crt expired at"):
                nn.Client(services.path, me="erin")
            np.testing.assert_array_equal(client.predict(x), network().predict(x))
        for name in services.logs:
            assert "event=certificate of=erin why=" in services.told(name)
    finally:
        assert not services.stop()
