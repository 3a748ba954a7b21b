"""Services of three parties that watch one another, in processes: clients who cheat, and parties who do."""

import dataclasses
import json
import signal
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.core import wire
from mpc.core.errors import ABORTED
from mpc.core.frames import Kind
from mpc.transport.connection import exchange
from nn.serving import client as client_module
from nn.serving.parcels import DIFFERENT_SHARES, Parcel, pack
from tests.helpers.programs import branched_network, network, picture_network, price_network
from tests.helpers.scripts import sotto
from tests.helpers.services import Services

PARTIES = ("alice", "bob", "cleo")
X = np.random.default_rng(5).random((12, 64))
PRICED = np.random.default_rng(6).uniform(0, 1, (4, 3))
MODELS = {
    "network": (network(), {"low": 0, "high": 1, "scores": True}),
    "pictures": (picture_network(), {"low": 0, "high": 1}),
    "prices": (price_network(), {}),
    "branched": (branched_network(), {}),
}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("watched"), MODELS, workers=1, parties=PARTIES,
        clients=("dora", "erin"), security="malicious",
    )  # fmt: skip
    yield running
    assert not running.stop()


def asks(services, model="network", me="dora", **options):
    return nn.Client(services.path, me=me, model=model, **options)
