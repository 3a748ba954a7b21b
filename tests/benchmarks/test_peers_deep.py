"""The deep networks that libraries are compared by: one work, whoever does it."""

import numpy as np
import pytest

import mpc
import nn


@pytest.mark.parametrize(
    ("kind", "name"), [("resnet20", "ResNet20"), ("encoder", "TransformerEncoder")]
)
def test_the_networks_are_those_of_nn(peers, kind, name):
    deep = peers("deep_networks")
    model = getattr(nn.networks, name)().from_parameters(deep.whole_arrays(kind))
    rows = deep.rows(kind, 3, 0)
    wanted = deep.scores(kind, rows)
    np.testing.assert_allclose(model.decision_function(rows), wanted, atol=1e-12)
    # Scores that differ from row to row, and are not all the bias.
    assert np.ptp(wanted, axis=0).max() > 0.05
    assert not np.isin(deep.typical(kind), rows).any()


def test_peers_get_the_arrays_that_are_evaluated(peers):
    """Convolutions with batch normalisation folded in, in the order of the evaluation."""
    deep = peers("deep_networks")
    arrays = deep.arrays("resnet20")
    assert [a.ndim for a in arrays] == [4, 1] * 19 + [2, 1]
    rows = deep.rows("resnet20", 2, 0)
    first = np.maximum(deep.convolve(rows.reshape(-1, 32, 32, 3), arrays[0], 1) + arrays[1], 0)
    normalised = deep.resnet20()[0][0]
    raw = deep.convolve(rows.reshape(-1, 32, 32, 3), normalised.kernel, 1)
    scaled = (raw - normalised.mean) / np.sqrt(normalised.variance + deep.EPSILON)
    np.testing.assert_allclose(first, np.maximum(scaled, 0), atol=1e-12)
    assert deep.strides() == [1] * 7 + [2] + [1] * 5 + [2] + [1] * 5


@pytest.mark.parametrize("item", ["resnet20_1", "encoder_1"])
def test_sottos_worker_does_that_work(peers, item):
    work, worker = peers("work"), peers("sotto_worker")
    item = work.ITEMS[item]
    with mpc.Session() as session:
        found = worker.prepare(session, item)()
    np.testing.assert_allclose(found, work.expected(item), atol=2e-3)


def test_published_figures_are_right_and_of_every_library(benchmark):
    publish = benchmark("publish")
    if not (publish.FILES / "peers_deep.json").exists():
        pytest.skip("not measured: publish.py --run --only peers_deep")
    found = publish.read("peers_deep")
    assert [item["item"] for item in found["work"]] == ["resnet20_1", "resnet20_8", "encoder_1"]
    for item in found["work"]:
        assert {"sotto", "spu", "crypten", "crypten-default"} <= set(item["libraries"])
        assert item["libraries"]["sotto"]["max_abs_error"] <= 2e-3
