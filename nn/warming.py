"""What a service does before it says that it is ready, so that no client waits for what comes once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nn.model_description import answers_of
from nn.shared_model import SharedModel
from ring import encode

__all__ = ["warm_up"]


def warm_up(model: SharedModel, evaluate: Callable[..., Any]) -> None:
    """Evaluate a row that nobody has sent, for every kind of answer; nothing is revealed.

    All parties do so together. It compiles the kernels here and at the provider, where they are
    not in the cache, and opens the weights under their masks.

    Parameters
    ----------
    model : SharedModel
    evaluate : callable
        Takes a model, rows and the kind of answer, and returns it, still secret.
    """
    session = model.session
    form = session.format
    # The last party holds the low end of the range, and the others zeros.
    last = session.here == (session.size - 1,)
    low = np.broadcast_to(model.low, model.n_features_in_)
    low = low if model.inputs is None else model.inputs.apply(low)
    row = encode(low, form.frac_bits, int_bits=form.int_bits) * np.uint64(last)
    for answer in answers_of(model):
        x = model.rows_from_shares(row[None, None])
        model.prepare(x, evaluate, answer=answer)
        evaluate(model, x, answer)
