"""Own keys, certificates of others put into parties.toml, and what `sotto check` finds."""

import os
import re
import stat
import subprocess
import sys

import pytest

import mpc
from mpc.parties import configuration, membership
from mpc.parties.membership import join
from mpc.transport import certificates
from mpc.transport.certificates import load_certificate, make_certificate
from nn.command import main
from tests.helpers.dates import redate
from tests.helpers.ports import free_ports
from tests.helpers.services import ROOT

MARK = b"\xef\xbb\xbf"


@pytest.fixture
def example(tmp_path):
    return configuration.write_example(tmp_path / "trial", ports=free_ports(3))


@pytest.fixture
def erin(tmp_path):
    """A certificate that has come from somewhere, without its key."""
    paths = tmp_path / "inbox" / "erin.crt", tmp_path / "erin.key"
    paths[0].parent.mkdir()
    make_certificate("erin", *paths)
    return paths[0]


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_key_is_its_owners_own(tmp_path, capsys):
    arguments = ["key", "alice", "--folder", str(tmp_path), "--address", "a.example:9001"]
    umask = os.umask(0)
    try:
        assert main([*arguments, "--days", "90"]) == 0
    finally:
        os.umask(umask)
    told = capsys.readouterr().out
    made = load_certificate(tmp_path / "alice.crt")
    assert (made.name, made.address) == ("alice", "a.example:9001")
    assert 89.9 < made.days_left < 90
    for text in ("alice.key, mode 600", "a.example:9001", made.validity, made.fingerprint):
        assert text in told
    assert stat.S_IMODE((tmp_path / "alice.key").stat().st_mode) == 0o600
    before = tree(tmp_path)
    assert main(arguments) == 78
    assert "exists already" in (error := capsys.readouterr().err) and "--successor" in error
    assert tree(tmp_path) == before
    for number in (2, 3):
        assert main(["key", "alice", "--folder", str(tmp_path), "--successor"]) == 0
        again = load_certificate(tmp_path / f"alice-{number}.crt")
        assert (again.name, again.address) == ("alice", "a.example:9001")
    assert before.items() <= tree(tmp_path).items()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a b"], "a name must have letters"),
        (["../alice"], "a name must have letters"),
        (["alice", "--days", "0"], "--days must be in"),
        (["alice", "--days", "1000000"], "--days must be in"),
        (["alice", "--address", "https://a.example:1"], "--address must be"),
        (["alice", "--address", "0.0.0.0:9001"], "nobody can reach 0.0.0.0"),
    ],
)
def test_a_key_that_cannot_be_made_leaves_nothing(tmp_path, capsys, arguments, told):
    assert main(["key", *arguments, "--folder", str(tmp_path / "new")]) in (2, 78)
    assert told in capsys.readouterr().err
    assert not tree(tmp_path)


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path):
    code = (
        "import resource, sys; from nn.command import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300));"
        "sys.exit(main(['key', 'alice', '--folder', sys.argv[1]]))"
    )
    run = [sys.executable, "-B", "-c", code, str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    # The key fits, its certificate does not.
    assert done.returncode == 78 and "alice.crt cannot be written: File too large" in done.stderr
    assert not tree(tmp_path)


def test_joining_makes_a_file_that_works(tmp_path):
    path = tmp_path / "mine" / "parties.toml"
    inbox = tmp_path / "inbox"
    for name, address in {
        "alice": "127.0.0.1:9001", "bob": "[::1]:9002", "dealer": "localhost:9003", "carol": "",
    }.items():  # fmt: skip
        assert main(
            ["key", name, "--folder", str(path.parent if name == "alice" else inbox / name)]
            + (["--address", address] if address else [])
        ) == 0  # fmt: skip
        if name != "alice":
            (inbox / name / f"{name}.key").rename(tmp_path / f"{name} has it")
    join(path, [path.parent / "alice.crt", inbox / "bob" / "bob.crt"], "party")
    with pytest.raises(mpc.ConfigurationError, match="says nothing of a provider"):
        mpc.Session(path, me="alice")
    join(path, [inbox / "dealer" / "dealer.crt"], "provider")
    join(path, [inbox / "carol" / "carol.crt"], "client")
    read = configuration.load(path)
    assert read.names == ("alice", "bob") and set(read.clients) == {"carol"}
    assert read.parties["bob"].address == ("::1", 9002)
    assert read.provider.address == ("localhost", 9003)
    assert {name for name, member in read.members.items() if member.key} == {"alice"}
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "alice.crt", "alice.key", "bob.crt", "carol.crt", "parties.toml", "provider.crt",
    ]  # fmt: skip
    assert main(["check", str(path), "--me", "alice"]) == 0


@pytest.mark.parametrize("mark", [b"", MARK], ids=["plain", "marked"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("ending", [True, False], ids=["newline", "no newline"])
def test_comments_and_layout_are_kept(example, erin, mark, newline, ending):
    text = example.read_text().replace("[parties.bob]", "  [ parties . bob ]  # friend \u00fc")
    text = text.replace('certificate = "bob.crt"', "\tcertificate  =  'bob.crt'  # his")
    text = (text if ending else text.rstrip()).replace("\n", newline)
    example.write_bytes(mark + text.encode())
    example.chmod(0o664)
    umask = os.umask(0o077)
    try:
        join(example, [erin], "client")
    finally:
        os.umask(umask)
    new = example.read_bytes()
    added = f'[clients.erin]{newline}certificate = "erin.crt"{newline}'
    gap = newline if ending else 2 * newline
    assert new == mark + (text + gap + added).encode()
    assert stat.S_IMODE(example.stat().st_mode) == 0o664
    bob = example.parent / "bob-2.crt"
    make_certificate("bob", bob, example.parent / "bob-2.key")
    join(example, [bob])
    line = "\tcertificate  =  'bob.crt'  # his"
    successor = f'{line}{newline}\tsuccessor = "bob-2.crt"'
    assert example.read_bytes() == new.replace(line.encode(), successor.encode())
    read = configuration.load(example)
    assert len(read.parties["bob"].certificates) == 2
    assert read.clients["erin"].accepted == (load_certificate(erin).der,)


def as_it_is(text):
    return text


def with_an_error(text):
    return text.replace("answer = 60", "answer = -1")


def with_clients_in_a_line(text):
    inline = 'clients = {carol = {certificate = "carol.crt"}}\n'
    return inline + text.partition("# Who may ask")[0]


def with_a_quoted_word(text):
    return text.replace('certificate = "bob.crt"', "'certificate' = \"bob.crt\"")


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (as_it_is, {}, "erin is not in .*: say --as party, --as provider, --as auditor or --as cl"),
        (as_it_is, {"role": "party"}, "does not state at which address erin listens"),
        (as_it_is, {"role": "party", "address": "e.example"}, "address must be"),
        (as_it_is, {"role": "party", "address": "0.0.0.0:1"}, "nobody can reach 0.0.0.0"),
        (as_it_is, {"role": "client", "name": "no name"}, "say --name"),
        (as_it_is, {"role": "client", "name": "provider"}, "provider is a provider in .*, not a c"),
        (as_it_is, {"role": "party", "name": "carol"}, "carol is a client in .*, not a party"),
        (as_it_is, {"role": "client", "fingerprint": "AB"}, "not AB: it is not the certificate"),
        (with_an_error, {"role": "client"}, r"line \d+: answer must be a positive number"),
        (with_clients_in_a_line, {"role": "client"}, r"laid out.*\n  \[clients.erin\]\n  certif"),
        (with_a_quoted_word, {"name": "bob"}, r"laid out.*\n  \[parties.bob\]\n  successor = "),
    ],
)
def test_what_cannot_be_joined_changes_nothing(example, erin, change, arguments, told):
    example.write_text(change(example.read_text()))
    before = tree(example.parent)
    with pytest.raises((mpc.ConfigurationError, mpc.ArgumentError), match=told):
        join(example, [erin], **arguments)
    assert tree(example.parent) == before


def test_nobody_joins_twice_and_all_join_or_none(example, erin, tmp_path):
    join(example, [erin], "client", fingerprint=load_certificate(erin).fingerprint)
    before = tree(example.parent)
    with pytest.raises(mpc.ConfigurationError, match="erin's certificate in .* already"):
        join(example, [erin], "client")
    with pytest.raises(mpc.ConfigurationError, match="dora has the certificate of erin"):
        join(example, [erin], "client", name="dora")
    with pytest.raises(mpc.ConfigurationError, match="holds a private key"):
        join(example, [tmp_path / "erin.key"], "client")
    new = tmp_path / "finn.crt", tmp_path / "finn"
    make_certificate("finn", *new)
    with pytest.raises(mpc.ConfigurationError, match="already"):
        join(example, [new[0], erin], "client")
    with pytest.raises(mpc.ArgumentError, match="of one certificate, got 2"):
        join(example, [new[0], erin], "client", name="finn")
    assert tree(example.parent) == before
    for number in (2, 3):
        make_certificate("erin", tmp_path / f"{number}.crt", tmp_path / f"{number}.key")
    join(example, [tmp_path / "2.crt"])
    with pytest.raises(mpc.ConfigurationError, match='write certificate = "erin-2.crt" there'):
        join(example, [tmp_path / "3.crt"])
    assert len(configuration.load(example).clients["erin"].certificates) == 2


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_is_as_it_was(example, erin, monkeypatch, step):
    before = tree(example.parent)

    def full(*_):
        raise OSError(28, "No space left on device")

    if step == "fsync":
        # The certificate's copy is there by then.
        real, calls = os.fsync, []
        monkeypatch.setattr(
            certificates.os, "fsync", lambda n: full() if len(calls) else (calls.append(n), real(n))
        )
    else:
        monkeypatch.setattr(type(example), "replace", full)
    with pytest.raises(mpc.ConfigurationError, match="cannot be written: No space left"):
        join(example, [erin], "client")
    monkeypatch.undo()
    assert tree(example.parent) == before
    join(example, [erin], "client")


def test_a_file_that_changes_meanwhile_is_not_overwritten(example, erin, monkeypatch):
    real = membership.check_text

    def change(path, text):
        real(path, text)
        example.write_text(example.read_text() + "# by somebody else\n")

    monkeypatch.setattr(membership, "check_text", change)
    with pytest.raises(mpc.ConfigurationError, match="has changed meanwhile"):
        join(example, [erin], "client")
    assert "erin" not in example.read_text() and example.read_text().endswith("else\n")


@pytest.mark.parametrize(
    ("name", "role"), [("alice", "party"), ("dealer", "provider"), ("guard", "auditor")]
)
def test_a_copy_of_ones_own_certificate_finds_ones_own_key(tmp_path, capsys, name, role):
    mine, inbox = tmp_path / "mine", tmp_path / "inbox"
    inbox.mkdir()
    assert main(["key", name, "--folder", str(mine), "--address", "127.0.0.1:9001"]) == 0
    copy = inbox / "as it came.crt"
    copy.write_bytes((mine / f"{name}.crt").read_bytes())
    path = mine / "parties.toml"
    assert main(["join", str(path), str(copy), "--as", role]) == 0
    text = path.read_text()
    assert f'certificate = "{name}.crt"\nkey = "{name}.key"\n' in text
    assert f"key          {name}.key" in capsys.readouterr().out
    assert sorted(p.name for p in mine.iterdir()) == [f"{name}.crt", f"{name}.key", "parties.toml"]
    # A file from before, that names no key, is not mended behind its owner's back.
    path.write_text(text.replace(f'key = "{name}.key"\n', ""))
    assert main(["join", str(path), str(copy), "--as", role]) != 0
    assert f'it is yours, so write there: key = "{name}.key"' in capsys.readouterr().err
    path.write_text(text)
    assert main(["join", str(path), str(copy), "--as", role]) != 0
    assert "it is yours" not in capsys.readouterr().err


def test_check_shows_and_compares_fingerprints(example, capsys):
    shown = configuration.load(example).parties["bob"].certificates[0].fingerprint
    assert main(["check", str(example)]) == 0
    told = capsys.readouterr().out
    assert shown in told and "only its owner can say" in told
    for spelled in (shown, shown.lower().replace(":", "")):
        assert main(["check", str(example), "--fingerprint", f"bob={spelled}"]) == 0
    capsys.readouterr()
    assert main(["check", str(example), "--fingerprint", f"alice={shown}"]) == 78
    assert f"not {shown}: it is not the one that alice has made" in capsys.readouterr().err
    assert main(["check", str(example), "--fingerprint", shown]) == 2
    assert "--fingerprint must be NAME=HEX" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "me", "told"),
    [
        ("127.0.0.1", "nowhere.invalid", "alice", r"alice at nowhere\.invalid:.* cannot be found"),
        ("127.0.0.1", "192.0.2.1", "alice", r"alice cannot listen at 192\.0\.2\.1, .*listen ="),
        ('key = "alice.key"', 'key = "bob.key"', "alice", "do not belong together"),
        ('key = "alice.key"', "", "alice", "alice needs key"),
        ("", "", "nobody", "me must be one of"),
    ],
)
def test_check_finds_what_would_not_work(example, capsys, old, new, me, told):
    example.write_text(example.read_text().replace(old, new))
    assert main(["check", str(example), "--me", me]) == 78
    assert re.search(told, capsys.readouterr().err)


def test_check_says_who_has_expired_and_whose_fault_it_is(example, capsys):
    folder = example.parent
    redate(folder / "carol.crt", folder / "carol.key", -9, -1)
    redate(folder / "alice.crt", folder / "alice.key", -9, 9)
    assert main(["check", str(example), "--me", "bob"]) == 0
    told = capsys.readouterr().out
    assert "carol.crt expired at" in told and "alice.crt expires in 8 days" in told
    assert main(["check", str(example), "--me", "carol"]) == 78
    redate(folder / "alice.crt", folder / "alice.key", -9, -1)
    assert main(["check", str(example), "--me", "bob"]) == 78
    assert "alice's certificate" in (error := capsys.readouterr().err) and "expired" in error


def test_check_warns_of_addresses_that_only_this_machine_can_reach(example, capsys):
    text = example.read_text()
    port = configuration.load(example).parties["bob"].address[1]
    example.write_text(text.replace(f"127.0.0.1:{port}", f"192.0.2.1:{port}"))
    assert main(["check", str(example)]) == 0
    assert "alice, provider: an address that only this machine" in capsys.readouterr().out


def test_init_says_that_it_is_for_a_trial(tmp_path, capsys):
    assert main(["init", str(tmp_path / "trial")]) == 0
    assert "for a trial on this machine, and for nothing else" in capsys.readouterr().out
    assert (tmp_path / "trial" / "parties.toml").read_text().startswith("# For a trial on one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "provider.key").write_text("somebody's")
    assert main(["init", str(tmp_path / "other")]) == 78
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["provider.key"]
    assert main(["init", str(tmp_path / "third"), "--port", "65534"]) == 78
    assert "port below 65536" in capsys.readouterr().err and not (tmp_path / "third").exists()
