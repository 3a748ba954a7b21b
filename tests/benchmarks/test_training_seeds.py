"""Encrypted against plain training over several starts, as a user runs it."""

import json

import pytest

from tests.helpers.scripts import check_refused, run

SMALL = "--layers", "32", "--epochs", "2", "--seeds", "2", "--rows", "1200"


def test_every_seed_trains_three_times():
    done = run("training_seeds", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [seed["seed"] for seed in result["seeds"]] == [0, 1]
    assert result["images"] == 1200 and result["nudge"] == 2**-16
    for seed in result["seeds"]:
        for kind in ("plain", "nudged", "encrypted"):
            assert len(seed[kind]) == 2
            assert 0.2 < seed[kind][-1] <= 1
        assert max(abs(a - b) for a, b in zip(seed["plain"], seed["encrypted"], strict=True)) < 0.05


def test_table():
    done = run("training_seeds", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "encrypted - plain" in done.stdout and "standard error" in done.stdout
    check_refused(run("training_seeds", "--seeds", "0"), "--seeds must be at least 1, got 0")


@pytest.fixture
def seeds(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    import training_seeds

    return training_seeds


def result_of(*seeds):
    return {
        "seeds": [
            dict(zip(("plain", "nudged", "encrypted"), accuracies, strict=True))
            for accuracies in seeds
        ],
        "epochs": len(seeds[0][0]),
    }


def test_the_claim_follows_from_the_figures(seeds):
    same = result_of(
        ([0.9, 0.91], [0.901, 0.909], [0.9, 0.912]), ([0.8, 0.85], [0.8, 0.85], [0.8, 0.848])
    )
    assert seeds.rows_of(same)[1:] == [
        ["1", "85.00%", "+0.000 [+0.00 to +0.00]", "+0.050 [+0.00 to +0.10]"],
        ["2", "88.00%", "+0.000 [-0.20 to +0.20]", "-0.050 [-0.10 to +0.00]"],
    ]
    assert seeds.claim(same) == (
        "Encrypted and plain differ by 0.100 points on average, whatever the sign; two plain runs"
        " whose starts differ by 2^-16 by 0.050. The mean of encrypted - plain, +0.000 with a standard"
        " error of 0.100, is not told from zero by these runs."
    )
    worse = result_of(*(([0.9], [0.9], [0.89 + k / 1e4]) for k in range(5)))
    assert "is below zero by more than twice its standard error" in seeds.claim(worse)
