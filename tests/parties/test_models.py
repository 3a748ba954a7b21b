"""Models come and go while services run, and each client asks for those on its list alone."""

import re
import signal
import threading

import numpy as np
import pytest

import mpc
import nn
from mpc.core import wire
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.handshake import HEALTH, RELOAD, read_hello, send_hello, terms
from mpc.parties.health import ask
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import exchange
from nn.command import main
from tests.helpers.services import PARTIES, Services

X = np.random.default_rng(15).random((40, 64))
ANSWER = 8


def model(seed):
    rng = np.random.default_rng(seed)
    shapes = [(64, 32), (32,), (32, 10), (10,)]
    return nn.MLP.from_parameters([rng.normal(0, 0.2, shape) for shape in shapes])


class Running(Services):
    """Services that begin without a model."""

    def shares(self, seed):
        """Return the folder with all parties' shares of a model, saved anew."""
        folder = self.folder / f"shares{len(list(self.folder.glob('shares*')))}"
        with mpc.Session(PARTIES) as session:
            shared = model(seed).share(session, owner="alice", low=0, high=1)
            nn.save_shares(shared, folder)
        return folder

    def put(self, name, folder, parties=PARTIES):
        return [main(["put", str(self.path), "--me", me, name, str(folder)]) for me in parties] == [
            0
        ] * len(parties)

    def remove(self, name, parties=PARTIES):
        return [main(["remove", str(self.path), "--me", me, name]) for me in parties]

    def client(self, name="one", me="carol"):
        return nn.Client(self.path, me=me, model=name)

    def serves(self, name, seed, me="carol"):
        with self.client(name, me) as one:
            np.testing.assert_array_equal(one.predict(X), model(seed).predict(X))

    def reload(self, party):
        before = len(self.lines(party, "reload"))
        self.processes[party].send_signal(signal.SIGHUP)
        while len(self.lines(party, "reload")) == before:
            pass

    def told_by(self, party, asks="alice"):
        (found,) = ask(configuration.load(self.path), asks, of=party)
        return found.told


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("models"), {}, workers=1, answer=ANSWER)
    yield running
    assert not running.stop()


@pytest.fixture(scope="module")
def started(services):
    """Two models of one architecture, put while the services run."""
    with pytest.raises(mpc.ArgumentError, match="none is served, got 'one'"):
        services.client()
    assert services.put("one", services.shares(1)) and services.put("two", services.shares(2))
    services.serves("one", 1)
    services.serves("two", 2)
    return services


def greeted(services, party, me, purpose="predict"):
    read = configuration.load(services.path)
    context, _ = own_contexts(read, me)
    connection = connect(read.parties[party], context, 20)
    mine = {name: v for name, v in terms(read, None).items() if name != "program"}
    send_hello(connection, purpose, mine, b"")
    read_hello(connection, 20)
    return connection


def asked(connection, *call, share=None):
    """Send a call as a client does, with a share of one row for a prediction."""
    if share is None:
        connection.post_bytes(Kind.CALL, wire.encode(call))
    elif connection.peer == PARTIES[-1]:
        connection.post_bytes(Kind.CALL, wire.encode(call))
        connection.post(Kind.SHARE, [np.zeros((share, 64), np.uint64)])
    else:
        connection.post_bytes(Kind.CALL, wire.encode((*call, bytes(16))))
    connection.expect_bytes([Kind.ANSWER], 1 << 16)
    exchange([connection], ANSWER / 2)
    return wire.decode(connection.take().data.data)


def test_a_model_is_served_once_every_party_has_it(started, capsys):
    folder = started.shares(3)
    assert started.put("three", folder, ["alice"])
    assert "served when every party has" in capsys.readouterr().out
    told = started.told_by("alice")
    assert told["pending"] == ("three",) and "three" not in told["models"]
    with pytest.raises(mpc.ArgumentError, match="'three'"):
        started.client("three")
    started.serves("one", 1)
    assert started.put("three", folder, ["bob"])
    assert "bob and all other parties serve it now" in capsys.readouterr().out
    assert "pending" not in started.told_by("alice")
    started.serves("three", 3)
    assert started.remove("three") == [0, 0]
    with pytest.raises(mpc.ArgumentError, match="model must be one of one, two, got 'three'"):
        started.client("three")
    started.serves("two", 2)


def test_put_tells_the_digest_by_which_a_client_refuses_a_successor(started, capsys):
    assert started.put("named", started.shares(4))
    digests = re.findall("model_digest: ([0-9a-f]{64})\n", capsys.readouterr().out)
    assert len(digests) == 2 and len(set(digests)) == 1
    told = [each for each in started.told_by("bob")["digests"] if each.startswith("named=")]
    assert told == [f"named={digests[0]}"]
    options = {"me": "carol", "model": "named", "model_digest": digests[0]}
    with nn.Client(started.path, **options) as pinned, started.client("named") as other:
        np.testing.assert_array_equal(pinned.predict(X), model(4).predict(X))
        # The same model, saved anew: other salts, other shares, another digest.
        assert started.put("named", started.shares(4))
        with pytest.raises(mpc.AnswerError, match="'named' has the digest [0-9a-f]{64} now"):
            pinned.predict(X)
        np.testing.assert_array_equal(other.predict(X), model(4).predict(X))
    with pytest.raises(mpc.AnswerError, match="model_digest is " + digests[0]):
        nn.Client(started.path, **options)
    assert started.remove("named") == [0, 0]


def asking(services, name, seeds, stop, found, me="carol"):
    """Ask until told to stop: each answer must be that of one of the models as a whole."""
    plain = [model(seed).predict(X).tolist() for seed in seeds]
    try:
        with services.client(name, me) as client:
            while not stop.is_set():
                found.append(plain.index(client.predict(X).tolist()))
    except BaseException as error:
        found.append(error)


def test_a_model_is_replaced_at_once_for_all_and_no_request_is_lost(started):
    assert started.put("changing", started.shares(4))
    stop, found = threading.Event(), [[] for _ in range(6)]
    threads = [
        threading.Thread(target=asking, args=(started, "changing", (4, 5), stop, each))
        for each in found
    ]
    for thread in threads:
        thread.start()
    old, new = started.shares(4), started.shares(5)
    assert started.put("changing", new, ["alice"])
    # Alice has had three sets since the one that both have.
    assert started.put("changing", old, ["alice"]) and started.put("changing", new, ["alice"])
    counts = [len(each) for each in found]
    while any(len(each) < count + 2 for each, count in zip(found, counts, strict=True)):
        assert all(0 <= each[-1] < 1 for each in found if each)
    assert started.put("changing", new, ["bob"])
    counts = [len(each) for each in found]
    while any(len(each) < count + 2 for each, count in zip(found, counts, strict=True)):
        assert all(thread.is_alive() for thread in threads), found
    stop.set()
    for thread, each in zip(threads, found, strict=True):
        thread.join()
        # The old one, then the new one, and never a mixture.
        assert each == sorted(each) and set(each) == {0, 1}
    started.remove("changing")


def test_a_model_that_is_removed_is_an_error_that_names_it(started):
    assert started.put("going", started.shares(6))
    stop, found = threading.Event(), []
    thread = threading.Thread(target=asking, args=(started, "going", (6,), stop, found))
    thread.start()
    while not found:
        pass
    assert started.remove("going", ["alice"]) == [0]
    thread.join()
    assert isinstance(found[-1], mpc.ArgumentError | mpc.PeerError), found[-1]
    assert re.search("model must be one of|not all parties have shares", str(found[-1]))
    assert "'going'" in str(found[-1])
    started.serves("one", 1)
    # It comes back where its files are still known.
    assert started.remove("going", ["bob"]) == [0]


@pytest.mark.parametrize("wrong", ["missing", "damaged", "other party", "readable", "name"])
def test_what_is_wrong_is_refused_and_changes_nothing(started, wrong, tmp_path, capsys):
    before = started.path.read_text()
    folder, name, told = tmp_path / "shares", "one", ""
    started.shares(7).rename(folder)
    file = folder / "alice.npz"
    if wrong == "missing":
        file.unlink()
        told = "alice.npz does not exist"
    elif wrong == "damaged":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(data)
        told = "is damaged|cannot be read"
    elif wrong == "other party":
        file.write_bytes((folder / "bob.npz").read_bytes())
        told = "party must be 'alice', got 'bob'"
    elif wrong == "readable":
        file.chmod(0o644)
        told = "must be readable by its owner alone"
    else:
        name, told = "a\nb", "a model's name must have"
    assert main(["put", str(started.path), "--me", "alice", name, str(folder)]) == 78
    assert re.search(told, capsys.readouterr().err)
    assert started.path.read_text() == before
    started.serves("one", 1)


def test_what_the_service_refuses_is_not_left_in_the_configuration(started, capsys):
    """Another model's file is gone, so alice cannot read what the configuration names."""
    before, kept = started.path.read_text(), started.shares(8)
    folder = configuration.load(started.path).parties["alice"].folders["two"]
    (folder / "alice.npz").rename(folder / "away")
    try:
        assert main(["put", str(started.path), "--me", "alice", "one", str(kept)]) == 78
        assert "alice goes on as before" in capsys.readouterr().err
        assert main(["remove", str(started.path), "--me", "alice", "one"]) == 78
        assert started.path.read_text() == before
        started.serves("one", 1)
        started.serves("two", 2)
    finally:
        (folder / "away").rename(folder / "alice.npz")


def test_a_model_that_is_not_there_cannot_be_removed(started, capsys):
    before = started.path.read_text()
    assert started.remove("nothing", ["bob"]) == [78]
    assert "has no 'nothing', only one, two" in capsys.readouterr().err
    assert main(["remove", str(started.path), "--me", "carol", "one"]) == 2
    assert "--me must be one of alice, bob, got 'carol'" in capsys.readouterr().err
    assert started.path.read_text() == before


def test_what_was_put_is_served_after_a_restart_and_may_be_put_before(started, capsys):
    started.kill("alice")
    assert started.put("early", started.shares(9), ["alice"])
    assert "cannot be reached" in capsys.readouterr().out
    folder = configuration.load(started.path).parties["alice"].folders["early"]
    started.start("alice")
    assert started.put("early", folder, ["bob"])
    started.serves("early", 9)
    started.serves("one", 1)
    started.remove("early")


@pytest.mark.parametrize(("party", "me"), [("alice", "erin"), ("alice", "bob"), ("bob", "alice")])
def test_nobody_else_can_have_a_party_read_its_files(started, party, me):
    before = len(started.lines(party, "reload"))
    try:
        connection = greeted(started, party, me, RELOAD)
        connection.expect_bytes([Kind.ANSWER], 1 << 16)
        exchange([connection], 1)
        connection.close()
        raise AssertionError("was answered")
    except mpc.PeerError:
        pass
    assert len(started.lines(party, "reload")) == before
    started.serves("one", 1)


@pytest.fixture
def listed(started):
    """Dora may ask for one model, erin for none; first bob alone knows."""
    text = started.path.read_text()
    changed = text.replace("[clients.dora]", '[clients.dora]\nmodels = ["one", "secret"]').replace(
        "[clients.erin]", "[clients.erin]\nmodels = []"
    )
    started.path.write_text(changed)
    started.reload("bob")
    yield started
    started.path.write_text(text)
    for name in PARTIES:
        started.reload(name)


def test_a_client_asks_for_the_models_on_its_list_alone(listed):
    listed.reload("alice")
    listed.serves("one", 1, "dora")
    # The only one that dora may ask for is the default.
    with nn.Client(listed.path, me="dora") as dora:
        assert dora.models() == ["one"]
        assert (dora.predict(X) == model(1).predict(X)).all()
    with listed.client() as carol:
        assert carol.models() == ["one", "two"]
    for name in ("two", "nothing"):
        with pytest.raises(mpc.ArgumentError, match="dora may ask for one, secret alone, not for"):
            listed.client(name, "dora")
    with pytest.raises(mpc.ArgumentError, match="erin may ask for no model alone, not for 'one'"):
        listed.client("one", "erin")
    for party in PARTIES:
        assert listed.told_by(party, "dora")["models"] == ("one",)
        assert listed.told_by(party, "erin")["models"] == ()
        assert listed.told_by(party)["models"] == ("one", "two")


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_prediction_without_a_description_is_refused_just_so(listed, everywhere):
    """One party that has the list is enough, and the others do not wait for it."""
    if everywhere:
        listed.reload("alice")
    alice, bob = (greeted(listed, party, "dora") for party in PARTIES)
    for name in ("two", "nothing"):
        for id in (b"1" * 16, b"2" * 16):
            status, text = asked(bob, "predict", id, name, b"", "class", 1, share=1)
            assert status == "error" and text.startswith("dora may ask for one, secret alone")
            status, text = asked(alice, "predict", id, name, b"", "class", 1, share=1)
            if everywhere:
                assert status == "error" and text.startswith("dora may ask for one, secret alone")
            else:
                assert status == "later" if name == "two" else "error"
    # In the other order too: what has arrived is refused, and not kept for so long as ANSWER.
    alice.post_bytes(
        Kind.CALL, wire.encode(("predict", b"3" * 16, "two", b"", "class", 1, bytes(16)))
    )
    alice.expect_bytes([Kind.ANSWER], 1 << 16)
    alice.push()
    assert asked(bob, "predict", b"3" * 16, "two", b"", "class", 1, share=1)[0] == "error"
    exchange([alice], ANSWER / 2)
    assert wire.decode(alice.take().data.data)[0] in ("error", "later")
    assert dict(asked(bob, "health")[1:])["models"] == ("one",)
    for connection in (alice, bob):
        connection.close()
    listed.serves("one", 1, "dora")


def test_a_client_that_is_connected_already_is_refused_from_then_on(started):
    with started.client("two", "dora") as dora:
        assert (dora.predict(X) == model(2).predict(X)).all()
        text = started.path.read_text()
        started.path.write_text(text.replace("[clients.dora]", '[clients.dora]\nmodels = ["one"]'))
        for name in PARTIES:
            started.reload(name)
        with pytest.raises(mpc.PeerError, match="dora may ask for one alone, not for .two."):
            dora.predict(X)
        started.path.write_text(text)
        for name in PARTIES:
            started.reload(name)
        assert (dora.predict(X) == model(2).predict(X)).all()


def test_the_gateway_has_the_same_list(listed):
    asking_ = pytest.importorskip("nn.gateway.asking")
    listed.reload("alice")
    dora, carol = (asking_.Asking(listed.path, me, 1) for me in ("dora", "carol"))
    assert dora.models() == ["one"] and carol.models() == ["one", "two"]
    assert dora.describe("one")["features"] == 64
    with pytest.raises(asking_.HttpError, match="404 UnknownModel"):
        dora.describe("two")
    dora.close()
    carol.close()


def test_health_for_anybody_else_has_all_models(started):
    connection = greeted(started, "bob", "alice", HEALTH)
    connection.expect_bytes([Kind.ANSWER], 1 << 16)
    exchange([connection], 10)
    assert dict(wire.decode(connection.take().data.data))["models"] == ("one", "two")
    connection.close()


def test_models_of_one_architecture_are_evaluated_together(started):
    stop, found = threading.Event(), [[] for _ in range(8)]
    threads = [
        threading.Thread(
            target=asking, args=(started, ("one", "two")[k % 2], (1 + k % 2,), stop, each)
        )
        for k, each in enumerate(found)
    ]

    def both():
        """Whether some evaluation had requests for both: lines of one follow each other."""
        lines = started.lines("bob", "request")
        while lines:
            count = int(re.search(r"together=(\d+)", lines[0])[1])
            if len({re.search(r"model=(\w+)", line)[1] for line in lines[:count]}) == 2:
                return True
            del lines[:count]
        return False

    for thread in threads:
        thread.start()
    while not (both() and all(found)):
        assert all(thread.is_alive() for thread in threads), found
    stop.set()
    for thread in threads:
        thread.join()
    assert all(set(each) == {0} for each in found), found
