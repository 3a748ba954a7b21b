"""Warming up: a service's evaluation of each model before it is ready, so that no client waits for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from mpc.core.errors import RangeError
from nn.serving.model_description import answers_of
from nn.shared.model import SharedModel
from ring import encode

__all__ = ["warm_up"]

# Rows, and words of all rows, at most. Many rows use further kernels than one row.
_ROWS, _WORDS = 128, 1 << 17


def warm_up(model: SharedModel, evaluate: Callable[..., Any]) -> None:
    """Evaluate a model on rows of its range, for every kind of answer; nothing is revealed.

    All parties do so together. It compiles the kernels that are not in the cache, here and at the
    provider, and opens the weights under their masks.

    Parameters
    ----------
    model : SharedModel
    evaluate : callable
        ``evaluate(model, rows, answer)`` returns the answer as a shared array.
    """
    session = model.session
    form = session.format
    # The last role has the low end of the range, and the others zeros.
    last = np.array(session.here) == session.size - 1
    low = np.broadcast_to(model.low, model.n_features_in_)
    low = low if model.inputs is None else model.inputs.apply(low)
    row = encode(low, form.frac_bits, int_bits=form.int_bits) * last[:, None].astype(np.uint64)
    many = max(1, min(_ROWS, _WORDS // model.n_features_in_))
    answers = answers_of(model)
    for answer, rows in [(answers[0], many), *((answer, 1) for answer in answers)]:
        x = model.rows_from_shares(np.repeat(row[:, None], rows, axis=1))
        # The low end of the range may be unlike any row, and leave limits that rows do not.
        with suppress(RangeError):
            model.prepare(x, evaluate, answer=answer)
            evaluate(model, x, answer)
