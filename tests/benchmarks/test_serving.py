"""benchmarks/serving.py: it measures what it says, and tells answers that are wrong."""

import json

import numpy as np
import pytest

from tests.helpers.scripts import check_refused, run

SMALL = ("--clients", "4", "--seconds", "1", "--warm-up", "0.3", "--turns", "1")


def test_all_of_it(benchmark):
    done = run(
        "serving", *SMALL, "--models", "2", "--hostile", "all", "--soak", "60", "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    (load,) = measured["load"]
    assert (load["clients"], load["models"], load["errors"]) == (4, 2, {})
    assert load["requests_a_second"] > 0 and load["first_second"] > 0
    assert 0 < load["median_ms"] <= load["p99_ms"]
    assert set(load["cpu_ms"]) == {"provider", "alice", "bob", "clients"}
    (harmed,) = measured["hostile"]
    kinds = list(benchmark("hostile").KINDS)
    assert harmed["kinds"] == kinds and len(harmed["undisturbed"]) == 2
    rates = [
        np.mean([t["requests_a_second"] for t in harmed[k]]) for k in ("undisturbed", "harmed")
    ]
    assert harmed["loss_percent"] == pytest.approx(100 * (1 - rates[1] / rates[0]), abs=0.06)
    assert harmed["errors"] == {}
    soak = measured["soak"]
    # Each client has asked once before.
    assert 6 <= soak["early"]["requests"] <= soak["requests"] <= 64
    assert set(soak["end"]) == set(soak["early"]["bytes"]) == {"provider", "alice", "bob"}
    serving = benchmark("serving")
    assert len(list(serving.tables(measured))) == 3
    text = "\n".join(serving.serving_text(measured))
    assert f"one of each of {len(kinds)} kinds at once" in text
    assert "| growth |" in text and f"warm-up of {measured['warm_up']:g} s" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--clients", "1"), "--clients must be at least 2"),
        (("--seconds", "0"), "--seconds must be positive"),
        (("--turns", "0"), "--turns must be at least 1"),
        (("--soak", "0"), "--soak must be at least 1"),
    ],
)
def test_mistakes(arguments, said):
    check_refused(run("serving", *arguments), said)
