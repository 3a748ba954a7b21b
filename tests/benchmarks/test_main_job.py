"""The main job as a user runs it."""

import json

import pytest

from tests.helpers.scripts import MNIST, check_refused, run

KEYS = {
    "data", "layers", "images", "plain_accuracy", "encrypted_accuracy", "agreement",
    "seconds_encrypted", "images_per_second", "rounds", "bytes_sent_per_party", "correction_bytes",
    "parties",
}  # fmt: skip


def job(*arguments):
    return run("encrypted_mnist", *arguments)


@pytest.mark.parametrize("parties", ["alice,bob", "alice,bob,carol"])
def test_digits(parties):
    done = job("--layers", "32", "--epochs", "10", "--parties", parties, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) >= KEYS
    assert result["layers"] == [64, 32, 10]
    assert result["parties"] == parties.split(",")
    assert result["plain_accuracy"] > 0.9
    assert abs(result["plain_accuracy"] - result["encrypted_accuracy"]) <= 0.005
    assert result["agreement"] > 0.99
    # So many numbers take ReLU in four rounds if that takes two parties no trip more.
    assert result["rounds"] == 1 + (4 if len(result["parties"]) == 2 else 3) + 1 + 4 + 1 + 1


@pytest.mark.parametrize("where", [[], ["--processes"]], ids=["here", "processes"])
def test_without_a_provider(where):
    done = job("--layers", "32", "--epochs", "10", "--no-provider", "--json", *where)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) >= KEYS and result["provider"] is None
    assert result["plain_accuracy"] > 0.9
    assert abs(result["plain_accuracy"] - result["encrypted_accuracy"]) <= 0.005
    assert result["agreement"] > 0.99
    assert result["correction_bytes"] == 0


def test_table_without_a_provider():
    done = job("--layers", "16", "--epochs", "2", "--no-provider")
    assert done.returncode == 0, done.stderr
    assert "computed by alice, bob alone\n" in done.stdout
    assert "from the provider" not in done.stdout and "provider included" not in done.stdout


def test_table():
    done = job("--layers", "16", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    for line in ("accuracy, encrypted", "predictions that agree", "images a second", "rounds"):
        assert line in done.stdout


def test_mnist():
    """The targets on the real digits: accuracy, agreement, memory."""
    if not MNIST.is_dir():
        pytest.skip("needs the four MNIST files in ../shared/mnist")
    done = job("--data", str(MNIST), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["images"] == 10_000
    assert result["layers"] == [784, 128, 128, 10]
    assert result["plain_accuracy"] >= 0.975
    assert abs(result["plain_accuracy"] - result["encrypted_accuracy"]) <= 0.001
    assert result["agreement"] >= 0.999
    assert result["peak_bytes"] < 1.5e9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parties", "alice"), "at least two computing parties"),
        (("--parties", "a,b,c", "--no-provider"), "has two parties, got 3: a, b, c"),
        (("--parties", "alice,alice"), "'alice' twice"),
        (("--layers", "0"), "layer_sizes"),
        (("--layers", "x"), "--layers must be numbers, got 'x'"),
        (("--epochs", "0"), "epochs must be at least 1, got 0"),
        (("--data", "nowhere/at/all"), "nowhere"),
        (("--repeats", "0"), "--repeats must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said):
    check_refused(job("--epochs", "1", *arguments), said)
