"""The deep networks' benchmark, on one row; and what it refuses."""

import json

import pytest

from tests.helpers.scripts import check_refused, run


def test_measures(benchmark):
    deep = benchmark("deep")
    found = json.loads(json.dumps(deep.measure("ResNet20", 1, 1)))
    assert found["proven"] and found["agree"] == 1
    # 19 convolutions with ReLU, the dense layer, the mean, the proof, and the label.
    assert found["rounds"] > 19 * 4 and found["trips"] <= found["rounds"]
    assert found["peak_bytes"] >= found["bytes_before"] > 0
    measured = {"machine": deep.facts(), "repeats": 1, "networks": [found]}
    (line,) = [text for text in deep.deep_text(measured) if "ResNet20" in text]
    assert "1 of 1" in line and "yes" in line
    assert len(deep.rows_of(measured)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "ResNet20,A"], "--networks must be among ResNet20"),
        (["--rows", "0"], "--rows must be whole numbers of at least 1, got '0'"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    check_refused(run("deep", *arguments), message)
