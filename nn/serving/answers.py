"""What a service computes for requests: whether their rows are in range, and the answer.

A client may send any words. From rows out of range it learns what arithmetic modulo 2^64 makes of them: 2^k
times a unit vector shows bits of a linear model's weights, by labels alone. So a request is refused unless
each of its words lies between the ends of the model's range, as :class:`nn.Client` encodes them. That is
checked on shares before the answer: :mod:`mpc.protocols.intervals`, with a group for each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.protocols import intervals
from nn.fixed_point.inputs import ScaledRows
from nn.shared.heads import SharedHeads
from nn.shared.model import SharedModel

__all__ = [
    "OUTSIDE", "answer_of", "answer_to_checked", "checked_answer", "prepare_check", "requests_inside",
]  # fmt: skip

OUTSIDE = "a row of this request is outside the range that the model was shared for, so there is no answer"


def answer_of(
    model: SharedModel, x: Any, answer: str, progress: bool | None = False
) -> Any:  # fmt: skip
    """Return the answer of a model for rows, as a shared array."""
    if isinstance(model, SharedHeads):
        return model.answers(x, progress=progress)
    if answer in ("scores", "values"):
        return model(x, progress=progress).truncate()
    winners = model.winners(x, one_hot=answer == "one-hot", progress=progress)
    # Clients get shares, so that making them of bits is part of what is planned and kept in stock.
    _ = winners.shares
    return winners


def answer_to_checked(
    model: SharedModel, x: Any, answer: str, progress: bool | None = False
) -> Any:  # fmt: skip
    """Return the answer of a model for rows that :func:`requests_inside` has found in range."""
    return answer_of(model.for_checked_rows(), x, answer, progress)


def requests_inside(
    models: Sequence[SharedModel], rows: Sequence[int], x: Any
) -> NDArray[np.bool_]:
    """Open for each request whether its rows are in range: one bit each, and nothing else.

    Parameters
    ----------
    models : sequence of SharedModel
        The model of each request.
    rows : sequence of int
        How many rows each request has.
    x : SharedArray or ScaledRows
        The rows of all requests, from :meth:`SharedModel.rows_from_shares`.

    Returns
    -------
    bool array of shape (requests,)
    """
    array = x.scaled if isinstance(x, ScaledRows) else x
    low, high = (
        np.concatenate(
            [
                np.broadcast_to(model.encoded_range[k], (count, array.shape[1]))
                for model, count in zip(models, rows, strict=True)
            ]
        )
        for k in (0, 1)
    )
    with array.session.layer("rows in range"):
        return intervals.groups_inside(array, low, high, [count * array.shape[1] for count in rows])


def checked_answer(model: SharedModel, x: Any, answer: str, requests: int = 1) -> Any:
    """Check the rows of so many requests for a model, and return its answer, in range or not.

    In plans, where it does not matter which rows are whose, and on rows that are in range.
    """
    _check(model, x, requests)
    return answer_to_checked(model, x, answer)


def _check(model: SharedModel, x: Any, requests: int) -> None:
    requests_inside([model] * requests, [len(x) - requests + 1, *[1] * (requests - 1)], x)


def prepare_check(model: SharedModel, x: Any, requests: int) -> None:
    """Have the randomness of the check alone made ahead, without that of the answer."""
    array = x.scaled if isinstance(x, ScaledRows) else x
    model.session.prepare(
        lambda planned: _check(model, planned.twin(array), requests),
        key=(prepare_check, array.outline(), requests),
    )
