"""Weights in a training between processes: the clear's results, and parties that do not agree."""

from functools import partial

import numpy as np
import pytest

import mpc
from tests.helpers import weighted_programs as programs


def test_training_with_secret_weights_follows():
    plain = programs.network().fit(
        programs.X, programs.Y, class_weight="balanced", sample_weight=programs.SAMPLE,
        **programs.HOW,
    )  # fmt: skip
    found = mpc.launch(programs.trained, ("alice", "bob"))
    for own in found.values():
        for a, b in zip(own, plain.parameters, strict=True):
            assert np.abs(a - b).max() < 1e-3


@pytest.mark.parametrize(
    "different",
    [
        {"class_weight": [{1: 2.0}, {1: 3.0}]},
        {"sample_weight": [np.ones(64), np.linspace(1, 2, 64)]},
        {"learning_rate": [0.1, 0.1 + 1e-9]},
        {"random_state": [0, 1]},
    ],
    ids=lambda different: next(iter(different)),
)
def test_parties_with_other_arguments_are_told_and_get_no_model(different):
    with pytest.raises(mpc.LaunchError, match="runs another program"):
        mpc.launch(partial(programs.apart, **different), ("alice", "bob"))


def test_equal_arguments_may_be_written_otherwise():
    same = {
        "class_weight": [{1: 2, 0: 1}, {1: np.float64(2.0)}], "random_state": [0, np.int64(0)],
        "learning_rate": [0.1, np.float64(0.1)],
    }  # fmt: skip
    found = mpc.launch(partial(programs.apart, **same), ("alice", "bob"))
    for a, b in zip(*found.values(), strict=True):
        assert np.array_equal(a, b)
