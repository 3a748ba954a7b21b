"""Functions beside other libraries: one work for all, and texts that say what was found."""

import json

import numpy as np
import pytest

import mpc
from tests.helpers.scripts import check_refused, run


def test_sottos_worker_does_the_work_of_every_function(peers):
    work, worker = peers("work"), peers("sotto_worker")
    items = work.choose(["functions:400"])
    assert len(items) >= 20
    with mpc.Session(ranges="error") as session:
        for item in items:
            assert all(np.all(a % 2.0**-10 == 0) for a in work.inputs(item))
            found = worker.prepare(session, item)()
            wanted = work.expected(item)
            assert np.ptp(wanted) > 0 or wanted.size == 1, item.name
            # The most that a function states, for the largest exponential.
            np.testing.assert_allclose(found, wanted, atol=2e-4, rtol=0, err_msg=item.name)
            order = item.function.different
            assert not order or len(np.unique(work.inputs(item)[0])) == work.inputs(item)[0].size


def test_what_a_library_lacks_is_told_and_not_computed(peers):
    work, parties, compare = peers("work"), peers("parties"), peers("run")
    (sort,) = work.choose(["sort:9"])

    class Without:
        def prepare(self, item):
            return item.function.of("crypten")

    found = parties.measure(Without(), sort, 1)
    assert list(found) == ["lacks"] and "sorting" in found["lacks"]
    summed = compare.summary(sort, {"crypten": [[{"item": sort.name, **found}]]})
    assert summed["libraries"] == {"crypten": found} and summed["ratio_to_sotto"] == {}


@pytest.mark.parametrize("name", ["sqrt:", "sqrt:0", "sqrt:x", "relu_1m:5", "inference:5", "root"])
def test_work_that_there_is_not(peers, name):
    with pytest.raises(ValueError, match="no work is called"):
        peers("work").choose([name])


@pytest.fixture(scope="module")
def measured():
    """A run without peers: parties and provider as processes."""
    done = run(
        "functions", "--peers", "--functions", "sqrt,sort", "--elements", 600, "--turns", 1,
        "--repeats", 1, "--sort", 700, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_measures_processes_with_a_provider(measured):
    root, sort = (item["libraries"]["sotto-processes"] for item in measured["work"])
    assert root["max_abs_error"] < 2.0**-14 and sort["max_abs_error"] == 0
    # Sharing is a round, too.
    assert root["rounds"] <= 9
    for found in (root, sort):
        # What the provider deals is beside what both parties send.
        assert found["bytes_sent"] > sum(found["bytes_by_party"]) > 600 * 8
        assert "provider" in found["bytes_are"]
    assert measured["sorting"]["exact"] and measured["sorting"]["elements"] == 700


def test_texts_name_what_is_lost_and_lacked(benchmark, measured):
    functions, publish = benchmark("functions"), benchmark("publish")
    found = json.loads(json.dumps(measured))
    root, sort = found["work"]
    mine = root["libraries"]["sotto-processes"]
    root["libraries"]["spu"] = mine | {"median": mine["median"] / 2, "rounds": mine["rounds"] + 1}
    root["ratio_to_sotto"] = {"spu": 0.5}
    sort["libraries"]["spu"] = {"lacks": "it has no sorting"}
    far = {"max_abs_error": 0.011 * root["largest_result"], "median": mine["median"] / 3}
    root["libraries"]["crypten"] = mine | far
    root["ratio_to_sotto"]["crypten"] = 1 / 3
    sort["libraries"]["crypten"] = sort["libraries"]["spu"]
    found["libraries"]["crypten"] = found["libraries"]["sotto-processes"]
    found["libraries"]["spu"] = found["libraries"]["sotto-processes"]
    assert functions.verdict(found) == [
        "Sotto is the fastest in 1 of 2 rows; not in square root, 600 (spu, crypten).",
        "Of libraries whose results are right within 1 % of the largest, it is in 1 of 2.",
        f"crypten is wrong in square root, 600 by {far['max_abs_error']:.2g} of"
        f" {root['largest_result']:.3g}.",
        "spu lacks sort, 600: it has no sorting.",
        "crypten lacks sort, 600: it has no sorting.",
    ]
    # Faster and wrong is no win, faster and right is one.
    del root["libraries"]["spu"]
    assert functions.verdict(found)[1].endswith("it is in 2 of 2.")
    root["libraries"]["spu"] = mine | {"median": mine["median"] / 2, "rounds": mine["rounds"] + 1}
    text = "\n".join(functions.functions_text(found, publish.beside(found)))
    assert "| sort, 600 |" in text and "lacks it" in text and "Sorting 700 numbers" in text
    lost = text.partition("### Where Sotto loses")[2]
    assert "square root, 600, seconds" in lost and "rounds" not in lost.partition("Machine")[0]
    # What is included is the same of all, and said once.
    assert text.count("revealing the result to both") == 1


def test_bad_arguments():
    check_refused(run("functions", "--turns", 0), "--turns must be at least 1, got 0")


def test_published_figures(benchmark):
    publish = benchmark("publish")
    if not (publish.FILES / "functions.json").exists():
        pytest.skip("not measured: publish.py --run --only functions")
    found = publish.read("functions")
    assert len(found["work"]) >= 20 and found["sorting"]["elements"] == 100_000
    assert found["sorting"]["exact"]
    for item in found["work"]:
        assert {"sotto-processes", "spu", "crypten"} <= set(item["libraries"]), item["title"]
        # Products of 256 factors below 1, and exponentials up to 55.
        assert item["libraries"]["sotto-processes"]["max_abs_error"] <= 1e-3
