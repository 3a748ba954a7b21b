"""Comparison of a model on shares with the plain model, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpc import Session
from mpc.core.errors import SessionError
from nn.core.checks import side_by_side
from nn.fixed_point.audit import Fitted
from nn.fixed_point.inputs import ScaledRows
from nn.layers import Layer
from nn.layers.graph import names, run, run_all
from nn.layers.normalisation import folded
from nn.shared.model import SharedModel
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError

__all__ = ["Comparison", "LayerDifference", "compare", "observe", "room_problem"]


@dataclass(frozen=True)
class LayerDifference:
    """How far one layer's output on shares is from the plain model's.

    Attributes
    ----------
    name : str
        Number and repr of the layer.
    difference, mean : float
        Largest and mean absolute difference.
    index : tuple of int
        Index of the largest difference: the row, then the axes of a row.
    plain, secret : float
        The two values at that index.
    """

    name: str
    difference: float
    mean: float
    index: tuple[int, ...]
    plain: float
    secret: float


@dataclass(frozen=True)
class Comparison:
    """The result of ``nn.compare``. Printing it gives a table.

    Attributes
    ----------
    layers : tuple of LayerDifference
    """

    layers: tuple[LayerDifference, ...]

    @property
    def difference(self) -> float:
        """The largest difference in the last layer's output."""
        return self.layers[-1].difference

    def __str__(self) -> str:
        rows = [("layer", "differs by", "on average", "at", "plain", "on shares")]
        for d in self.layers:
            rows.append(
                (d.name, f"{d.difference:.3g}", f"{d.mean:.3g}", str(d.index), f"{d.plain:.6g}",
                 f"{d.secret:.6g}")
            )  # fmt: skip
        widths = [max(len(row[k]) for row in rows) for k in range(6)]
        return "\n".join(
            "  ".join(
                [row[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            )
            for row in rows
        )


class HasLayers(Protocol):
    """The part of a plain model that is compared: its layers."""

    layers: Sequence[Layer]


def compare(model: HasLayers, secret_model: SharedModel, X: Any) -> Comparison:
    """Reveal every layer's output in a local session, and compare it with the plain model's.

    For debugging: it reveals secrets, so it refuses a session whose parties are not all in this
    process.

    Parameters
    ----------
    model : MLP, Classifier or Regressor
    secret_model : SharedModel
        The result of ``model.share``.
    X : array_like of shape (rows, features), or dict of str to array_like
        At least one row, inside the range of `secret_model`; of several inputs by their names, too.

    Returns
    -------
    Comparison
        ``print`` it for a table.

    Raises
    ------
    SessionError
        If not all parties live in this process.
    ArgumentError
        If the two models do not have the same layers.
    ShapeError, RangeError
        If `X` does not fit the model.

    Examples
    --------
    >>> import mpc, nn
    >>> model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
    >>> with mpc.Session() as s:
    ...     found = nn.compare(model, model.share(s, owner="alice"), [[0.25, 1.0]])
    >>> found.difference < 1e-4
    True
    """
    if not isinstance(secret_model, SharedModel):
        raise DtypeError(f"secret_model must be a shared model, got {type(secret_model).__name__}")
    session = secret_model.session
    if len(session.here) != session.size:
        raise SessionError(
            "compare reveals every layer's output, so it runs in a local session only: "
            f"of {', '.join(session.parties)} not all live in this process"
        )
    layers = folded(model.layers)
    if names(layers) != names(secret_model.layers):
        raise ArgumentError(
            f"model and secret_model must have the same layers, got {layers} and "
            f"{secret_model.layers}"
        )
    if isinstance(X, dict):
        X = side_by_side(X, secret_model.inputs_)
    rows = secret_model.share_rows(X, owner=session.parties[0])
    x: Any = np.asarray(X, dtype=np.float64)
    if not len(x):
        raise ShapeError(f"X must have at least one row, got shape {x.shape}")
    found = []
    plain = run_all(layers, x, lambda _, layer, given: layer(given))
    for (name, secret), x in zip(_revealed(secret_model, rows), plain, strict=True):
        gap = np.abs(secret - x)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
        found.append(
            LayerDifference(
                name, float(gap[index]), float(gap.mean()), index, float(x[index]),
                float(secret[index]),
            )
        )  # fmt: skip
    return Comparison(tuple(found))


def _revealed(model: SharedModel, rows: Any) -> list[tuple[str, NDArray[Any]]]:
    """Return each layer's name and revealed output."""
    array = rows.scaled if isinstance(rows, ScaledRows) else rows
    outputs = model.outputs(array)
    return [
        (name, output.reveal()) for name, output in zip(names(model.layers), outputs, strict=True)
    ]


def room_problem(
    share: Callable[[Session, str, Fitted], SharedModel], fitted: Fitted, form: FixedPoint
) -> str | None:
    """Return why protocols have no room in a format for a model's values; None if they have.

    What a protocol needs depends on the public bounds of values, which a plan of an evaluation knows.

    Parameters
    ----------
    share : callable
        As for :func:`observe`.
    fitted : Fitted
    form : FixedPoint
    """
    if not any(layer.sums_squares for layer in fitted.layers):
        return None

    def program(planned: Session) -> None:
        owner = planned.parties[0]
        secret = share(planned, owner, fitted)
        secret.evaluated(secret.share_rows(None, owner=owner, rows=1), n_jobs=1)

    with Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as session:
        try:
            session.plan(program)
        except RangeError as error:
            return f"frac_bits={form.frac_bits}, int_bits={form.int_bits}: {error}"
    return None


def observe(
    model: HasLayers,
    share: Callable[[Session, str, Fitted], SharedModel],
    fitted: Fitted,
    rows: NDArray[Any],
    some: NDArray[Any],
    form: FixedPoint | None,
) -> tuple[list[float], list[float] | None]:
    """Return the largest magnitudes that rows lead to, and the largest errors on shares.

    Parameters
    ----------
    model : plain model
    share : callable
        ``share(session, owner, fitted)`` returns the shared model.
    fitted : Fitted
        The model as it is to be shared.
    rows, some : array of shape (rows, features)
        All rows, and the first of them, which are evaluated on shares too.
    form : FixedPoint or None
        The fixed-point format; None leaves the errors out.

    Returns
    -------
    (list of float, list of float or None)
        Largest magnitudes, and largest absolute errors, of the input and of each layer's output.
    """
    x: Any = rows if fitted.inputs is None else fitted.inputs.apply(rows)
    inputs = x
    largest = [float(np.abs(x).max(initial=0.0))]

    def step(_: int, layer: Layer, given: Any) -> Any:
        output = layer(given)
        largest.append(float(np.abs(output).max(initial=0.0)))
        return output

    run(fitted.layers, x, step)
    if form is None:
        return largest, None
    with Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as session:
        owner = session.parties[0]
        secret = share(session, owner, fitted)
        shared = secret.share_rows(some, owner=owner)
        array = shared.scaled if isinstance(shared, ScaledRows) else shared
        errors = [float(np.abs(array.reveal() - inputs[: len(some)]).max(initial=0.0))]
        found = compare(model, secret, some)
    return largest, errors + [d.difference for d in found.layers]
