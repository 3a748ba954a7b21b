"""Two parties alone with a stock, measured beside the same processes with a provider."""

import json

import pytest


def test_a_stock_is_measured_beside_a_provider(benchmark):
    stock = benchmark("stock")
    result = stock.run((40,), turns=1, repeats=1)
    assert json.loads(json.dumps(result)) == json.loads(json.dumps(result))
    (batch,) = result["batches"]
    medians = batch["medians"]
    assert batch["ratios"] == [pytest.approx(medians["stock"][0] / medians["provider"][0])]
    assert batch["rounds"]["provider"] == 10
    # Nothing that is made ahead is counted, nor are the rounds in which files are agreed on.
    assert 13 < batch["rounds"]["stock"] < 60
    assert batch["bytes_ahead"] > 0
    (text,) = [line for line in stock.stock_text(result) if line.startswith("| images")]
    assert "| 40 |" in text
