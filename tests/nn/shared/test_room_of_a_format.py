"""Models whose layers have no room in a format: refused by share, and no end of a service."""

from types import SimpleNamespace

import numpy as np
import pytest

import mpc
from nn.layers import GELU, Abs, Dense, LayerNorm, LocalResponseNorm, RMSNorm
from nn.models.predictors import Regressor
from nn.serving.agreement import Request
from nn.serving.turns import Turns
from nn.serving.warming import warm_up
from ring.errors import RangeError

N = 4


def model_of(*layers):
    eye = Dense(np.eye(N), np.zeros(N))
    return Regressor([eye, *layers, eye], N, (-8.0, 8.0), flat=False)


@pytest.mark.parametrize("first", [Abs(), GELU()], ids=repr)
@pytest.mark.parametrize(
    "norm",
    [LayerNorm(np.ones(N), np.zeros(N)), RMSNorm(np.ones(N)), LocalResponseNorm(3)],
    ids=repr,
)
def test_share_names_the_integer_bits_that_have_room(first, norm):
    model = model_of(first, norm)
    model.output_scale_ = np.full(N, 1e3)  # whatever the fractional bits
    rows = np.random.default_rng(2).uniform(-8, 8, (3, N))
    with mpc.Session(frac_bits=13, int_bits=34) as session:
        with pytest.raises(RangeError, match="int_bits=34: .* at most .* integer bits") as caught:
            model.share(session, "alice")
        assert session.cost().rounds == 0
    audit = model.audit(rows, frac_bits=13, int_bits=34)
    assert not audit.fits
    assert audit.problem == str(caught.value)
    bits = int(str(caught.value).split("at most ")[1].split()[0])
    with mpc.Session(frac_bits=13, int_bits=bits) as session:
        secret = model.share(session, "alice")
        found = secret(secret.share_rows(rows, "bob")).reveal()
    np.testing.assert_allclose(found, model.predict(rows), atol=0.02)


class WithoutRoom:
    """A shared model whose plan finds no room."""

    scores, inputs, low, n_features_in_, layers = False, None, np.zeros(()), N, []

    def __init__(self):
        self.session = SimpleNamespace(
            format=mpc.Session().format,
            here=(1,),
            size=2,
            note=lambda *_: None,
            spent=lambda: 0,
            pair=None,
        )

    def rows_from_shares(self, words):
        return words

    def prepare(self, *_, **__):
        raise RangeError("no room")


def test_no_room_in_a_plan_ends_the_request_and_not_the_session():
    model = WithoutRoom()
    warm_up(model, lambda *_: pytest.fail("evaluated without a plan"))
    turns = Turns.__new__(Turns)
    turns.session, turns.models = model.session, {"m": model}
    requests = [
        Request("dora", bytes([k]) * 16, "m", b"v", "class", 1, np.zeros((1, 1, N), np.uint64),
                lambda: None, "m")
        for k in range(3)
    ]  # fmt: skip
    turns._evaluate(requests)
    assert [(r.done, r.problem, r.later) for r in requests] == [(True, "no room", False)] * 3
