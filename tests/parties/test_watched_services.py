"""Services of three or four parties that watch one another, in processes: clients and parties who cheat."""

import numpy as np
import pytest

import mpc
import nn
from mpc.core.errors import ABORTED
from nn.command import main
from nn.serving import client as client_module
from nn.serving.parcels import DIFFERENT_SHARES, Parcel, pack
from tests.helpers.programs import branched_network, network, picture_network
from tests.helpers.services import Services

PARTIES = ("alice", "bob", "cleo")
FOUR = (*PARTIES, "drew")
X = np.random.default_rng(5).random((12, 64))
MODELS = {
    "network": (network(), {"low": 0, "high": 1, "scores": True}),
    "pictures": (picture_network(), {"low": 0, "high": 1}),
    "branched": (branched_network(), {}),
}


class Cheaters(Services):
    """Services of parties that deviate when a file says so."""

    @property
    def cheat(self):
        return self.folder / "cheat"

    def start(self, name, **options):
        super().start(name, program=("-m", "tests.helpers.cheating", str(self.cheat)), **options)


def started(folder, parties):
    return Cheaters(
        folder, MODELS, workers=1, parties=parties,
        clients=("dora", "erin"), security="malicious",
        edit=lambda path: path.write_text(
            path.read_text().replace("[clients.erin]\n", "[clients.erin]\ntrusted = true\n")
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = started(tmp_path_factory.mktemp("watched"), PARTIES)
    yield running
    assert not running.stop()


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    running = started(tmp_path_factory.mktemp("four"), FOUR)
    yield running
    assert not running.stop()


@pytest.fixture(params=["services", "four"])
def either(request):
    """Services of three parties, or of four."""
    return request.getfixturevalue(request.param)


def asks(services, model="network", me="dora", **options):
    return nn.Client(services.path, me=me, model=model, **options)


def sessions(services):
    """How often each party's service has begun a session."""
    return [len(services.lines(name, "ready")) for name in services.parties]


def works(services, me="dora"):
    with asks(services, me=me) as client:
        np.testing.assert_array_equal(client.predict(X), network().predict(X))


def test_clients_get_the_models_answers(either):
    services = either
    for me in ("dora", "erin"):  # whose rows are checked, and whose are not
        with asks(services, me=me) as client:
            plain = network()
            np.testing.assert_array_equal(client.predict(X), plain.predict(X))
            found = client.decision_function(X)
            np.testing.assert_allclose(found, plain.decision_function(X), atol=1e-3)
            assert client.last_cost()[0] > 3
            seen = client.last_exchange_.parties
            # The last role's share comes in words, to both its holders.
            assert [each.seed for each in seen] == [True] * (len(seen) - 2) + [False] * 2
            assert tuple(each.party for each in seen) == services.parties
            # Alice's roles are the first two: their shares alone do not make up a row.
            first, second = seen[0].first_row.reshape(2, -1)
            assert not np.array_equal(first + second, np.rint(X[0] * 2**16).astype(np.uint64))
    with asks(services, "pictures") as client:
        np.testing.assert_array_equal(client.predict(X), picture_network().predict(X))
        assert client.predict_one_hot(X[:2]).sum() == 2
    with asks(services, "branched") as client:
        rows = 2 * X[:, :6] - 1
        found, right = client.predict(rows), branched_network().predict(rows)
        np.testing.assert_array_equal(found["kind"], right["kind"])
        np.testing.assert_allclose(found["size"], right["size"], atol=1e-3)


def test_rows_out_of_range_are_refused_and_the_session_lives(services):
    before = sessions(services)
    with asks(services) as client:
        for _ in range(3):
            with pytest.raises(mpc.RangeError, match="outside the range that the model"):
                client._send(np.full((2, 64), 1 << 40, np.uint64), "class")
        np.testing.assert_array_equal(client.predict(X), network().predict(X))
    assert sessions(services) == before


def other_share(parcels, others):
    """The last role's share differs between its two holders."""
    *first, one, last = parcels
    return [*first, Parcel(one.said, one.share + np.uint64(1), one.first_row), last]


def other_key(parcels, others):
    """A key differs between two holders of its role."""
    one, (keys, committed) = parcels[0], parcels[0].said
    return [Parcel((bytes(16) + keys[16:], committed), one.share, one.first_row), *parcels[1:]]


def other_rows(parcels, others):
    """One party gets other rows, with commitments to these."""
    return [*parcels[:-1], others[-1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_share, DIFFERENT_SHARES),
        (other_key, DIFFERENT_SHARES),
        (other_rows, "not every party has got this request alike"),
    ],
)
def test_a_client_that_tells_parties_different_things_is_refused(either, monkeypatch, change, said):
    services = either
    before = sessions(services)

    def cheating(rows, *args):
        parcels, masks = pack(rows, *args)
        return change(parcels, pack(rows + np.uint64(1), *args)[0]), masks

    with asks(services, patience=0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(client_module, "pack", cheating)
            with pytest.raises(mpc.PeerError, match=said):
                client.predict(X)
        np.testing.assert_array_equal(client.predict(X), network().predict(X))
    works(services, "erin")
    assert sessions(services) == before


def test_health_tells_security_and_the_digest_by_which_a_client_pins_the_model(services, capsys):
    with asks(services) as client:
        digest = client.model_digest_
    for me in ("alice", "dora"):
        assert main(["health", str(services.path), "--me", me]) == 0
        told = capsys.readouterr().out
        assert told.count(f"network={digest}") == 3 and told.count("security malicious") >= 3
    with asks(services, model_digest=digest.upper()) as client:
        assert client.model_digest_ == digest
        np.testing.assert_array_equal(client.predict(X), network().predict(X))
        # The parties compare, too: the model may be replaced between two calls.
        client._pinned = bytes(32)
        with pytest.raises(mpc.AnswerError, match=f"has the digest {digest} now"):
            client.predict(X)
    with pytest.raises(mpc.AnswerError, match=f"alice serves a model with the digest {digest}"):
        asks(services, model_digest="00" * 32)
    with pytest.raises(mpc.ArgumentError, match="64 hexadecimal digits"):
        asks(services, model_digest="00")


@pytest.fixture
def cheating(either):
    """Have a party deviate; after the test it is honest again."""
    yield lambda name, cheat: either.cheat.write_text(f"{name} {cheat}")
    either.cheat.unlink(missing_ok=True)
    works(either)


def test_another_answer_is_found_by_the_client(either, cheating):
    services = either
    before = sessions(services)
    with asks(services) as client:
        cheating("bob", "answer")
        with pytest.raises(mpc.AnswerError, match="alice and bob sent different answers"):
            client.predict(X)
        with pytest.raises(mpc.AnswerError):
            client.decision_function(X)
    assert sessions(services) == before


def test_another_digest_is_found_by_the_client(either, cheating):
    services = either
    cheating("bob", "digest")
    with pytest.raises(mpc.AnswerError, match="alice serves .* digest .*, and bob one with 0000"):
        asks(services, patience=5)


@pytest.mark.parametrize(
    ("place", "cheat"),
    [(1, "opening"), (-1, "plan"), (0, "shares")],
)
def test_what_a_party_does_in_a_turn_ends_the_session_before_an_answer(
    either, cheating, place, cheat
):
    services, cheater = either, either.parties[place]
    honest = [name for name in services.parties if name != cheater]
    with asks(services) as client:
        before = {name: len(services.lines(name, "lost")) for name in honest}
        client._patience = 0
        cheating(cheater, cheat)
        with pytest.raises(mpc.PeerError, match=ABORTED):
            client.predict(X)
    for name in honest:
        told = services.wait_for(name, "lost", count=before[name] + 1)[before[name] :]
        assert all(f"why={ABORTED!r}" in line for line in told), told
