"""Limits from rows between processes: every party is told, in workers and services, and nobody is wrong."""

import functools

import numpy as np
import pytest

import mpc
import nn
from tests.helpers import calibrated
from tests.helpers.services import PARTIES, Services


@pytest.mark.parametrize(
    ("network", "provider"),
    [
        (calibrated.deep_network, "crypto"), (calibrated.deep_network, None),
        (calibrated.residual_network, "crypto"), (calibrated.residual_network, None),
    ],
    ids=["two", "alone", "graph", "graph alone"],
)  # fmt: skip
def test_every_party_gets_the_answer_or_the_error(network, provider):
    program = functools.partial(calibrated.predictions, network=network)
    found = mpc.launch(program, provider=provider)
    model, _ = network()
    labels = model.predict(calibrated.rows())
    for name, got in found.items():
        for way in ("inside", "after"):
            np.testing.assert_array_equal(got[way], labels, err_msg=f"{name} {way}")
        for way, said in got.items():
            if way.startswith("beyond"):
                assert said.startswith("RangeError: a value of the network left its limit"), way


def test_services_refuse_one_clients_rows_and_answer_the_others(tmp_path):
    model, bounds = calibrated.deep_network()
    services = Services(tmp_path, {"deep": (model, {"scores": True, "bounds": bounds})}, workers=1)
    try:
        with nn.Client(services.path, me="carol", model="deep") as carol:
            for _ in range(2):
                labels = carol.predict(calibrated.rows())
                np.testing.assert_array_equal(labels, model.predict(calibrated.rows()))
                with pytest.raises(mpc.PeerError, match="left its limit"):
                    carol.predict(calibrated.rows_beyond())
                with pytest.raises(mpc.PeerError, match="left its limit"):
                    carol.decision_function(calibrated.rows_beyond())
        for name in PARTIES:
            assert services.processes[name].poll() is None
            assert len(services.lines(name, "ready")) == 1
    finally:
        assert not services.stop()
