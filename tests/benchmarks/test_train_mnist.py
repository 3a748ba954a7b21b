"""Encrypted training beside plain training, as a user runs it."""

import json

import pytest

from tests.helpers.scripts import MNIST, check_refused, run


def job(*arguments):
    return run("train_mnist", *arguments)


@pytest.mark.parametrize("parties", ["alice,bob", "alice,bob,carol"])
def test_digits(parties):
    done = job("--layers", "32", "--epochs", "3", "--parties", parties, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["layers"] == [64, 32, 10]
    assert result["parties"] == parties.split(",")
    assert [e["epoch"] for e in result["epochs"]] == [1, 2, 3]
    for e in result["epochs"]:
        # One of the 450 images is 0.22 points.
        assert abs(e["plain_accuracy"] - e["encrypted_accuracy"]) <= 0.005
        assert e["seconds"] > 0
        assert e["bytes_sent_per_party"] > 0
        assert e["correction_bytes"] > 0
    # 11 steps, each a mask of the weights, 3 rounds for a ReLU, 1 for its output's mask, 9 for the
    # softmax, 1 for its gradient's mask, 2 back through the ReLU, 1 for the update. Once an epoch the
    # check of the range: a seed, sums, the weights, whether none is outside (one table, no product).
    steps = 11 * (1 + 3 + 1 + 9 + 1 + 2 + 1)
    assert result["epochs"][1]["rounds"] == steps + 1 + 3 + 3 + 3
    assert result["epochs"][-1]["encrypted_accuracy"] > 0.8


def test_table():
    done = job("--layers", "16", "--epochs", "1", "--rows", "200", "--optimizer", "adam")
    assert done.returncode == 0, done.stderr
    for text in ("plain", "encrypted", "correction", "ms a step", "200 images of digits", "adam"):
        assert text in done.stdout


def test_figure(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    file = tmp_path / "curves.png"
    done = job("--layers", "16", "--epochs", "1", "--rows", "200", "--figure", str(file))
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(b"\x89PNG")


def test_mnist():
    """A hundred steps on the real digits."""
    if not MNIST.is_dir():
        pytest.skip("needs the four MNIST files in ../shared/mnist")
    # A rate at which two plain runs agree too that differ by 1e-5 in their initial weights: at 0.1
    # they are up to 0.2 points apart.
    how = "--rows", "12800", "--epochs", "1", "--learning-rate", "0.03125"
    done = job("--data", str(MNIST), *how, "--json")
    assert done.returncode == 0, done.stderr
    (epoch,) = json.loads(done.stdout)["epochs"]
    assert epoch["plain_accuracy"] > 0.85
    assert abs(epoch["plain_accuracy"] - epoch["encrypted_accuracy"]) <= 0.0015


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parties", "alice"), "at least two computing parties"),
        (("--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("--learning-rate", "1e-12"), "learning_rate must be at least 2^-24"),
        (("--data", "nowhere/at/all"), "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said):
    check_refused(job("--epochs", "1", *arguments), said)
