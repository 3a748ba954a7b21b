"""An auditor's cost, measured in turns with and without one."""

import json

import pytest

import mpc


@pytest.mark.parametrize(("security", "rows"), [("semi-honest", 40), ("malicious", 800)])
def test_calls_with_an_auditor_are_measured_beside_calls_without(benchmark, security, rows):
    auditor = benchmark("auditor")
    result = auditor.run((rows,), chunks=2, rate=1.0, warm_up=1, security=security)
    assert json.loads(json.dumps(result)) == json.loads(json.dumps(result))
    (batch,) = result["batches"]
    plain, audited = (batch["medians"][kind] for kind in auditor.KINDS)
    assert batch["ratios"] == [pytest.approx(b / a) for a, b in zip(plain, audited, strict=True)]
    # What it computes again is what the provider has computed: the clocks are those of the right processes.
    assert 0 < sum(batch["audited"]) <= sum(batch["parts"]) and len(batch["parts"]) == 2
    _, provider, again = auditor.cpu_of(batch, "audited")
    assert auditor.share_of(batch) == pytest.approx(again / provider)
    assert auditor.cpu_of(batch, "plain")[1] > 0
    (text,) = [line for line in auditor.auditor_text(result) if line.startswith("| images")]
    assert f"| {rows} |" in text and min(plain) > 0
    watched = "`auditor.py --security malicious`: network A, three parties"
    assert auditor.auditor_text(result)[0].startswith(watched) == (security == "malicious")


def test_what_the_coins_drew_is_taken_out(benchmark):
    auditor = benchmark("auditor")
    parts, audited = [10, 12, 8, 10], [0, 3, 1, 2]
    used = [(0.5 * p + 4 * a) / 2 for p, a in zip(parts, audited, strict=True)]
    cpu = {"audited": [[1.0, 10.0, each] for each in used]}
    batch = {"calls": 2, "parts": parts, "audited": audited, "cpu": cpu}
    # Of 40 parts 6 were drawn, where the rate says 4.
    assert auditor.at_rate(batch, 0.1) == pytest.approx((0.5 + 0.1 * 4) * 40 / 80)


@pytest.mark.parametrize("line", [["--rate", "2"], ["--chunks", "0"], ["--rows", "0"]])
def test_options_that_make_no_sense(benchmark, line):
    auditor = benchmark("auditor")
    with pytest.raises((ValueError, mpc.ArgumentError)):
        auditor.job(auditor.arguments(line))
