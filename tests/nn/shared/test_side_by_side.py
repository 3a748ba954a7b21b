"""Several models of one architecture in common rounds: each model's own answers, and no round more."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Dense, ReLU
from nn.models.predictors import Regressor
from nn.shared.side_by_side import architecture, side_by_side
from tests.helpers.programs import network, picture_network, price_network


def _like(model, seed):
    """Return a model of the same architecture with other parameters."""
    rng = np.random.default_rng(seed)
    layers = [
        layer.with_parameters([rng.normal(0, 0.3, p.shape) for p in layer.parameters])
        for layer in model.layers
    ]
    if isinstance(model, Regressor):
        return Regressor(layers, model.n_features_in_, (0.0, 1.0), flat=model.flat)
    return nn.Sequential.from_layers(layers, 64, classes=model.classes_)


# Two layers with parameters in turn, where what the first gives has to be truncated.
DEEP = nn.Sequential.from_layers(
    [Dense.untrained(64, 5), Dense.untrained(5, 4), ReLU(), Dense.untrained(4, 3)], 64
)
MODELS = {
    "dense": network(),
    "pictures": picture_network(),
    "deep": DEEP,
    "prices": price_network(),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
def test_each_models_own_answers_in_as_many_rounds_as_one(kind, parties):
    plain = [_like(MODELS[kind], seed) for seed in range(3)]
    features = plain[0].n_features_in_
    X = np.random.default_rng(9).random((7, features))
    with mpc.Session(parties) as s:
        models = [model.share(s, owner="alice", low=0, high=1) for model in plain]
        assert len({architecture(model) for model in models}) == 1
        together = side_by_side(models, [1, 4, 2])

        def rounds(model):
            before = s.cost()
            found = model(model.share_rows(X, owner="bob")).reveal()
            return found, (s.cost() - before).rounds

        for model in models:
            rounds(model)  # opens the weights under their masks
        scores, spent = rounds(together)
        alone = [rounds(model) for model in models]
        begin = 0
        for (expected, _), count in zip(alone, [1, 4, 2], strict=True):
            rows = slice(begin, begin + count)
            np.testing.assert_allclose(scores[rows], expected[rows], atol=2e-3)
            begin += count
        assert spent == alone[0][1]
        assert all(
            not np.allclose(alone[k][0], alone[k + 1][0], atol=2e-3) for k in range(len(alone) - 1)
        )


def test_one_alone_is_that_model():
    with mpc.Session() as s:
        model = network().share(s, owner="alice", low=0, high=1)
        assert side_by_side([model], [3]) is model


def test_other_rows_than_agreed_are_refused():
    with mpc.Session() as s:
        models = [_like(network(), k).share(s, owner="alice", low=0, high=1) for k in range(2)]
        together = side_by_side(models, [1, 1])
        with pytest.raises(mpc.ShapeError, match="take 2 rows, got 3"):
            together(together.share_rows(np.zeros((3, 64)), owner="bob"))


@pytest.mark.parametrize(
    "other",
    [
        (DEEP, {"low": 0, "high": 1}), (network(), {"low": -4, "high": 4}),
        (network(), {"low": np.zeros(64), "high": np.ones(64)}),
    ],
    ids=["layers", "range", "scale"],
)  # fmt: skip
def test_what_is_not_alike_is_not_evaluated_together(other):
    model, how = other
    with mpc.Session() as s:
        one = _like(network(), 1).share(s, owner="alice", low=0, high=1)
        assert architecture(one) != architecture(_like(model, 2).share(s, owner="alice", **how))
