"""parties.toml without a provider: what it says, what is refused, and that parties agree on it."""

import socket
import threading

import numpy as np
import pytest

import mpc
from mpc.parties import configuration, handshake
from mpc.parties.joining import Links
from mpc.provider.service import ProviderService
from mpc.two_party.silent import Silent
from nn.command import main
from nn.gateway.asking import Asking
from nn.gateway.server import _say
from nn.serving.service import PartyService
from tests.helpers import programs
from tests.helpers.ports import free_ports

NONE = 'provider = "none"\n'


@pytest.fixture
def trial(tmp_path):
    """The path of a configuration of alice and bob alone."""
    return configuration.write_example(tmp_path / "trial", provider=False)


@pytest.fixture
def usual(tmp_path):
    """The path of a configuration with a provider."""
    return configuration.write_example(tmp_path / "usual")


def refused(path, text, message):
    path.write_text(text)
    with pytest.raises(mpc.ConfigurationError) as caught:
        configuration.load(path)
    assert message in str(caught.value), caught.value
    return str(caught.value)


def test_the_example(trial):
    read = configuration.load(trial)
    assert read.provider is None and read.everybody == "alice and bob"
    assert [member.name for member in read.services] == ["alice", "bob"]
    assert set(read.members) == {"alice", "bob", "carol"}
    assert {path.name for path in trial.parent.glob("*.key")} == {
        f"{name}.key" for name in read.members
    }
    assert read.warnings() == {}


def test_a_file_says_one_or_the_other(trial, usual):
    text = trial.read_text()
    told = refused(trial, text.replace(NONE, ""), "says nothing of a provider")
    assert "a table [provider] with address" in told and 'provider = "none" at the top' in told
    whole = usual.read_text()
    told = refused(usual, NONE + whole, "only one of them can be meant")
    line = 2 + whole.splitlines().index("[provider]")
    assert f"line {line}: " in told and "[provider]" in told


def test_there_is_no_auditor_of_nobody(trial):
    text = trial.read_text().replace("[parties.alice]", "[auditor]\nrate = 1\n\n[parties.alice]")
    told = refused(trial, text, "an auditor checks a provider, and there is")
    assert "line" in told
    with pytest.raises(mpc.ArgumentError, match="auditor=True is for provider='crypto'"):
        mpc.launch(programs.divides, provider=None, auditor=True)
    with pytest.raises(
        mpc.ArgumentError, match="auditor must be True or False, got 0.5; audit_rate="
    ):
        mpc.launch(programs.divides, auditor=0.5)
    with pytest.raises(mpc.ArgumentError, match="above 0 and at most 1, got 0"):
        mpc.launch(programs.divides, auditor=True, audit_rate=0)


@pytest.mark.parametrize("says", ['"nobody"', "false", '"crypto"', "0"])
def test_a_file_says_none(trial, says):
    text = trial.read_text().replace('"none"', says)
    told = refused(trial, text, 'provider must be "none" or a table [provider], got ')
    assert f"line {1 + text.splitlines().index(f'provider = {says}')}: " in told


def relu_and_bytes(session):
    x = session.share(np.linspace(-1, 1, 200_000), owner="alice")
    revealed = x.relu().reveal()
    sent = session.cost().total.sent
    return revealed, sent, session.pair.extensions


def test_transfers_that_take_fewer_bytes(trial, usual):
    """The same result, by transfers that send a small part of the bytes."""
    sent = {}
    for transfers in ("softspoken", "ferret"):
        with mpc.Session(provider=None, transfers=transfers) as s:
            revealed, sent[transfers], extensions = relu_and_bytes(s)
        assert np.abs(revealed - np.linspace(-1, 1, 200_000).clip(0)).max() < 2e-5
        assert {isinstance(each, Silent) for each in extensions} == {transfers == "ferret"}
    assert sum(sent["ferret"]) < 0.5 * sum(sent["softspoken"])
    text = trial.read_text()
    said = text.replace(NONE, NONE + 'transfers = "ferret"\n')
    trial.write_text(said)
    assert configuration.load(trial).transfers == "ferret"
    assert handshake.terms(configuration.load(trial), None)["transfers"] == "ferret"
    # A client need not know.
    assert "transfers" not in handshake.client_terms(configuration.load(trial))
    written = configuration.write_example(
        trial.parent / "other", provider=False, transfers="ferret"
    )
    assert configuration.load(written).transfers == "ferret"
    refused(
        trial, said.replace('"ferret"', '"fast"'), "must be one of softspoken, ferret, got 'fast'"
    )
    refused(trial, said.replace('"ferret"', "4"), "transfers must be text, got 4")
    refused(usual, 'transfers = "ferret"\n' + usual.read_text(), "is for two parties with")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"provider": None, "transfers": "fast"}, "must be one of softspoken, ferret"),
        ({"transfers": "ferret"}, "transfers is for a session with provider=None"),
        ({"provider": "crypto", "transfers": "ferret"}, "transfers is for a session with"),
    ],
)
def test_transfers_that_are_refused(arguments, message):
    with pytest.raises(mpc.ArgumentError, match=message):
        mpc.Session(**arguments)


def test_a_launch_says_how_transfers_are_extended():
    found = mpc.launch(programs.kind_of_transfers, provider=None, transfers="ferret")
    assert found == {"alice": "Silent", "bob": "Silent"}
    with pytest.raises(mpc.ArgumentError, match="transfers is for provider=None"):
        mpc.launch(programs.kind_of_transfers, transfers="ferret")


@pytest.mark.parametrize("table", ["[timeouts]", "[parties]", "[parties.bob]", "[clients.carol]"])
def test_a_line_that_got_into_a_table_is_shown_the_top(trial, table):
    text = trial.read_text().replace(NONE, "")
    # As TOML has it: the line belongs to the table before it.
    if table == "[parties]":
        text = text.replace("[parties.alice]", "[parties]\n[parties.alice]")
    at = text.index("\n", text.index(table)) + 1
    told = refused(trial, text[:at] + NONE + text[at:], "goes to the top, above the first table")
    assert f"line {text[:at].count(chr(10)) + 1}: " in told


def test_more_than_two_parties_are_refused_by_name(tmp_path, capsys):
    three = ("alice", "bob", "erin")
    has_two = "a session without a provider has two parties, got 3: alice, bob, erin"
    path = configuration.write_example(tmp_path / "three", three, ())
    text = path.read_text()
    begin, end = text.index("# The crypto"), text.index("# The computing")
    assert has_two in refused(path, NONE + text[:begin] + text[end:], "line 1: ")
    for call in (
        lambda: configuration.write_example(tmp_path / "no", three, (), provider=False),
        lambda: mpc.launch(programs.divides, three, provider=None),
        lambda: mpc.Session(three, provider=None),
    ):
        with pytest.raises(mpc.PartyError, match=has_two):
            call()
    folder = str(tmp_path / "no")
    assert main(["init", folder, "--no-provider", "--parties", ",".join(three)]) != 0
    assert has_two in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_session_has_the_provider_that_the_configuration_says(trial, usual):
    for path, provider, has in ((trial, "crypto", "has none"), (usual, None, "names one")):
        with pytest.raises(mpc.ArgumentError, match=f"{has}, got {provider!r}"):
            mpc.Session(path, me="alice", provider=provider)
    for call in (
        lambda: mpc.Session(provider="none"),
        lambda: mpc.launch(programs.divides, provider="none"),
    ):
        with pytest.raises(mpc.ArgumentError, match="None for two parties alone, got 'none'"):
            call()


def test_a_session_that_ends_drops_what_the_two_have_made():
    with mpc.Session(provider=None) as session:
        x = session.share([1.0], owner="alice")
        assert session.pair is not None
    assert session.pair is None and not session.streams
    with pytest.raises(mpc.SessionError, match="the session is closed"):
        x.relu()


# Commands.


def test_init_and_check(tmp_path, capsys):
    path = str(tmp_path / "t" / "parties.toml")
    assert main(["init", str(tmp_path / "t"), "--no-provider"]) == 0
    told = capsys.readouterr().out
    assert "  alice, bob, carol\n" in told and "provider" not in told.replace("sotto check", "")
    assert f"mpc.Session({path!r}, me='alice')" in told
    assert main(["check", path, "--me", "alice"]) == 0
    told = capsys.readouterr().out
    assert told.endswith("alice and bob, all is well.\n") and "provider" not in told


def test_there_is_no_provider_to_run_or_to_ask(trial, capsys):
    says = f'{trial} says provider = "none": alice and bob compute without one'
    assert main(["provider", str(trial)]) == 78
    assert says in capsys.readouterr().err
    with pytest.raises(mpc.ConfigurationError, match="there is none to run"):
        ProviderService(configuration.load(trial))
    assert main(["health", str(trial), "--me", "alice", "--timeout", "0.5"]) == 1
    told = capsys.readouterr().out
    assert "alice" in told and "bob" in told and "provider" not in told
    assert main(["health", str(trial), "--me", "alice", "--of", "provider"]) == 2
    assert "--of must be one of alice, bob, got 'provider'" in capsys.readouterr().err


def test_services_go_on_with_what_they_began_with(trial, usual):
    with_one, without = configuration.load(usual), configuration.load(trial)
    service = ProviderService(with_one, sock=socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(mpc.ConfigurationError, match="there is none to run"):
        service.reload(without)
    assert service.read is with_one
    service.close(0)
    party = PartyService(without, "alice", {}, sock=socket.create_server(("127.0.0.1", 0)))
    try:
        with pytest.raises(
            mpc.PartyError, match="whether there is a provider, its auditor .* can change only"
        ):
            party.reload(with_one)
        assert party.read is without
    finally:
        party.stop()
        party.run()


def test_a_service_goes_on_if_a_party_is_lost_while_the_session_begins(trial, monkeypatch, caplog):
    """When two parties alone make keys for transfers, which takes a while."""
    party = PartyService(
        configuration.load(trial), "alice", {}, sock=socket.create_server(("127.0.0.1", 0))
    )

    def begin(*arguments):
        raise mpc.PeerError("bob closed the connection")

    monkeypatch.setattr(mpc.Session, "from_links", begin)
    try:
        party._serve(Links(b"", {}, None, {}, None))
        assert party.state == "bob closed the connection"
        assert "event=lost me=alice why='bob closed the connection'" in caplog.text
    finally:
        party.stop()
        party.run()


@pytest.fixture
def keys(tmp_path):
    """Keys as organisations make them, one folder each."""
    for number, name in enumerate(("alice", "bob", "carol", "provider")):
        address = f"127.0.0.1:{9001 + number}"
        assert main(["key", name, "--folder", str(tmp_path / name), "--address", address]) == 0
    return lambda name: str(tmp_path / name / f"{name}.crt")


def test_join_writes_that_there_is_none(tmp_path, keys, capsys):
    path = tmp_path / "alice" / "parties.toml"
    join = ["join", str(path), keys("alice"), keys("bob"), "--as", "party"]
    assert main([*join, "--no-provider"]) == 0
    assert configuration.load(path).provider is None
    assert main(["join", str(path), keys("carol"), "--as", "client", "--no-provider"]) == 0
    assert path.read_text().count(NONE) == 1
    assert main(["check", str(path), "--me", "alice"]) == 0
    # What would not work changes nothing.
    before = path.read_bytes(), sorted(path.parent.iterdir())
    capsys.readouterr()
    assert main(["join", str(path), keys("provider"), "--as", "provider"]) == 2
    told = capsys.readouterr().err
    assert f'{path} says provider = "none": delete that line at all parties to have one' in told
    assert main(["join", str(path), keys("provider"), "--name", "dora", "--as", "party"]) == 78
    assert "has two parties, got 3: alice, bob, dora" in capsys.readouterr().err
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_join_does_not_take_a_provider_away(tmp_path, keys, capsys):
    path = tmp_path / "alice" / "parties.toml"
    assert main(["join", str(path), keys("provider"), "--as", "provider"]) == 0
    before = path.read_bytes()
    join = ["join", str(path), keys("alice"), "--as", "party", "--no-provider"]
    assert main(join) == 2
    assert f"{path} names a provider: delete its table [provider]" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_join_without_a_provider_keeps_comments_and_layout(tmp_path, keys):
    path = tmp_path / "alice" / "parties.toml"
    path.write_text("# ours\r\n\r\n[format]  # as agreed\r\nfrac_bits = 16\r\n", newline="")
    assert main(["join", str(path), keys("alice"), "--as", "party", "--no-provider"]) == 0
    text = path.read_bytes().decode()
    assert text.startswith("# ours\r\n\r\n# Two parties without")
    assert 'provider = "none"\r\n\r\n[format]  # as agreed\r\n' in text
    assert "\n" not in text.replace("\r\n", "")


def test_the_gateway_names_those_that_compute(trial, usual, capsys):
    for path, everybody in ((trial, "alice and bob"), (usual, "alice, bob and the provider")):
        asking = Asking(path, "carol", 1)
        assert asking.provider == (path is usual)
        _say(asking, "127.0.0.1", 8080)
        assert f"\n{everybody} see shares, masked values and shapes.\n" in capsys.readouterr().out


# Sessions between processes.


def meet(paths):
    """Begin a session of both parties in two threads; return what each says."""
    said = {}

    def one(me):
        try:
            with mpc.Session(paths[me], me=me) as session:
                x = session.share([1.5, -2.0] if me == "alice" else None, owner="alice", shape=(2,))
                said[me] = x.relu().reveal().tolist()
        except mpc.SottoError as error:
            said[me] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=one, args=(me,), daemon=True) for me in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return said


def test_a_session_of_two_parties_alone_and_parties_that_disagree(tmp_path):
    ports = free_ports(3)
    alone = configuration.write_example(tmp_path / "t", ports=ports, provider=False)
    assert meet({"alice": alone, "bob": alone}) == {"alice": [1.5, 0], "bob": [1.5, 0]}
    # The same files but for the provider, which nobody runs: both are told at once.
    both = alone.with_name("both.toml")
    text = alone.read_text().replace(NONE, "")
    table = f'[provider]\naddress = "127.0.0.1:{ports[2]}"\ncertificate = "carol.crt"\n'
    both.write_text(text[: text.index("# Who may ask")] + table)
    for alice, bob in ((alone, both), (both, alone)):
        said = meet({"alice": alice, "bob": bob})
        has = ("'none'", "'crypto'") if alice is alone else ("'crypto'", "'none'")
        told = f"alice and bob disagree on provider: alice has {has[0]}, bob has {has[1]}"
        assert all(told in text for text in said.values()), said
        assert set(said) == {"alice", "bob"}
