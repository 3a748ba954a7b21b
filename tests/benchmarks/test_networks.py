"""The networks' benchmark, on a few made-up images; and what it refuses."""

import argparse
import json

import numpy as np
import pytest

from mpc.core.errors import SessionError
from tests.helpers.scripts import check_refused, run


@pytest.fixture
def networks(benchmark):
    return benchmark("networks")


def images(count):
    """A bar whose place is the label, all the rest black."""
    y = np.arange(count) % 10
    X = np.zeros((count, 28, 28), np.float32)
    X[np.arange(count), :, 2 * y + 4] = 1
    return X.reshape(count, 784), y


@pytest.mark.parametrize(("name", "rounds", "of_many"), [("B", 29, 34), ("D", 13, 14)])
def test_measures(networks, name, rounds, of_many):
    X, y = images(200)
    options = argparse.Namespace(
        parties="alice,bob,carol", epochs=2, train=None, images=130, seed=0, repeats=2, memory=False,
        json=True, train_encrypted=96, starts=2, no_provider=False,
    )  # fmt: skip
    result = networks.measure(name, options, (X, X, y, y))
    assert json.loads(json.dumps(result)) == result
    assert result["images"] == 130
    assert result["encrypted_accuracy"] == pytest.approx(result["plain_accuracy"], abs=1e-9)
    assert result["agreement"] == pytest.approx(1)
    single, batch = result["single"], result["batch"]
    # Of many elements ReLU takes a round more, and less is dealt.
    assert (single["rounds"], batch["rounds"]) == (rounds, of_many)
    assert sum(layer["bytes_sent"] for layer in single["layers"]) == single["bytes_sent"]
    assert sum(layer["rounds"] for layer in single["layers"]) == rounds
    assert batch["rows"] == 128
    # Bit planes are cut to 64 elements, which weighs on a single image; the round more opens 5 bits.
    assert 100 * single["bytes_sent"] < batch["bytes_sent"] <= 136 * single["bytes_sent"]
    assert {figure["network"] for figure in result["published"]} == {name}
    training = result["training"]
    assert [trained["seed"] for trained in training["runs"]] == [0, 1]
    assert training["rows"] == 96
    assert training["full_rows"] == 200
    seconds = sorted(trained["seconds"] for trained in training["runs"])
    assert training["seconds_full_epoch_extrapolated"] == pytest.approx(sum(seconds) / 2 * 200 / 96)
    for trained in training["runs"]:
        assert abs(trained["plain_accuracy"] - trained["encrypted_accuracy"]) <= 0.05
    text = networks.report(result)
    for part in (
        "accuracy, encrypted",
        "SecureNN",
        "2 Convolution",
        "argmax and reveal",
        "extrapolated",
    ):
        assert part in text


def test_without_a_provider(networks, benchmark):
    X, y = images(200)
    options = argparse.Namespace(
        parties="alice,bob", epochs=2, train=None, images=130, seed=0, repeats=1, memory=True,
        json=True, train_encrypted=None, starts=2, no_provider=True,
    )  # fmt: skip
    result = networks.measure("D", options, (X, X, y, y))
    assert result["provider"] is None
    assert result["agreement"] == pytest.approx(1)
    assert result["encrypted_accuracy"] == pytest.approx(result["plain_accuracy"], abs=1e-9)
    for part in (result["single"], result["batch"]):
        assert part["correction_bytes"] == 0 < part["bytes_sent"]
    assert "one image: correction bytes" not in networks.report(result)
    text = benchmark("networks_text").alone_text(
        {"networks": [result], "machine": networks.facts()}
    )
    assert any("130 of 130" in line for line in text)


def test_predictions_that_differ_from_the_plain_models_are_an_error(networks, monkeypatch):
    """The plain model has other weights than what is shared: as if a protocol were wrong."""
    X, y = images(50)
    model = networks.nn.networks.A(random_state=0).fit(X, y, epochs=2, progress=False)
    share = type(model).share
    other = networks.nn.networks.A(random_state=1).fit(X, (y + 1) % 10, epochs=2, progress=False)
    monkeypatch.setattr(type(model), "share", lambda self, *a, **k: share(other, *a, **k))
    with pytest.raises(
        SessionError, match="of 50 predictions are the plain model's, at least 99.9%"
    ):
        networks.accuracy(model, ["alice", "bob"], X, y, "crypto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "A,E"], "--networks must be of A,B,C,D, got 'A,E'"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--data", "digits"], "--data must be mnist or a folder, got 'digits'"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_arguments(arguments, message):
    check_refused(run("networks", *arguments), message)
