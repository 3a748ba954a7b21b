"""A network on shares: the same layers, with shared arrays for parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session, SharedArray
from mpc.cost import Spent
from mpc.errors import DtypeError, RangeError, ShapeError
from mpc.protocols import linear
from nn.bounds import check_range
from nn.checks import integer
from nn.layers import Dense, Layer
from nn.normalisation import folded
from nn.training import parameters

if TYPE_CHECKING:
    from nn.mlp import MLP

__all__ = ["SharedModel", "share_layers"]

# Fixed-point rounding can carry a value a little beyond the bounds of real arithmetic.
_MARGIN = 1 - 2**-10


def share_layers(
    session: Session, layers: Sequence[Layer], owner: str, low: float, high: float
) -> list[Layer]:
    """Check that no layer can leave the fixed-point range, then share every parameter.

    Batch normalisation is folded into the layer before it, and dropout left out.

    Raises
    ------
    RangeError
        If a parameter or an output can leave the range on inputs in [low, high]; the message
        names the layer. Nothing is shared then.
    """
    session.number(owner, "owner")
    layers = folded(layers)
    check_range(layers, low, high, session.format.limit * _MARGIN)
    return [
        layer.with_parameters(
            [
                session.share(p, owner, name=f"a parameter of layer {number}, {layer!r}")
                for p in layer.parameters
            ]
        )
        for number, layer in enumerate(layers, start=1)
    ]


class SharedModel:
    """A model of which every computing party holds a share.

    Made by ``model.share(session, owner=...)``. Calling it on shared rows gives their scores,
    still secret.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        With shared arrays for parameters.
    classes : array of shape (classes,)
        The labels that the outputs stand for. They are public.
    n_features : int
        Features of a row.
    low, high : float
        Range of the inputs for which the model was found to stay inside the fixed-point format.
        It is public.

    Attributes
    ----------
    validation_scores_, validation_losses_ : list of float
        Of a model that was trained on shares with validation data: what was revealed after each
        epoch.
    epoch_costs_ : list of Spent
        Rounds, bytes and seconds of each epoch that was trained here, without validation.

    Examples
    --------
    >>> import mpc, nn
    >>> X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    >>> model = nn.MLP((64, 16, 10), random_state=0).fit(X_train, y_train, epochs=3)
    >>> with mpc.Session() as s:
    ...     secret_model = model.share(s, owner="alice")
    ...     images = secret_model.share_rows(X_test[:20], owner="bob")
    ...     bool((secret_model.predict(images) == model.predict(X_test[:20])).all())
    True
    """

    def __init__(
        self,
        session: Session,
        layers: Sequence[Layer],
        classes: NDArray[Any],
        n_features: int,
        low: float,
        high: float,
    ) -> None:
        self.session = session
        self.layers = list(layers)
        self.classes_ = classes
        self.n_features_in_ = n_features
        self.low, self.high = low, high
        self.validation_scores_: list[float] = []
        self.validation_losses_: list[float] = []
        self.epoch_costs_: list[Spent] = []

    def __repr__(self) -> str:
        parties = ", ".join(self.session.parties)
        return (
            f"SharedModel({self.layers}, inputs=[{self.low:g}, {self.high:g}], parties={parties})"
        )

    def share_rows(
        self, X: ArrayLike | None, owner: str, *, rows: int | None = None
    ) -> SharedArray:
        """Share rows of input, after checking them against the range of the model.

        Parameters
        ----------
        X : array_like of shape (rows, features), or None where `owner` does not live
        owner : str
            The data owner, a computing party.
        rows : int, optional
            How many rows are coming, where `X` is None.

        Raises
        ------
        RangeError
            If a value lies outside [low, high]; the message names it and its index.
        ShapeError
            If the rows do not have the model's features.
        """
        shape = None if rows is None else (rows, self.n_features_in_)
        if X is not None:
            values = np.asarray(X, dtype=None if np.asarray(X).dtype.kind == "f" else np.float64)
            self._check_shape(values.shape)
            inside = (values >= self.low) & (values <= self.high)
            if not inside.all():
                place = tuple(int(i) for i in np.argwhere(~inside)[0])
                raise RangeError(
                    f"X must lie in [{self.low:g}, {self.high:g}], the range this model was shared"
                    f" for, got {values[place]} at index {place}"
                )
            X = values
        largest = max(abs(self.low), abs(self.high))
        return self.session.share(
            X, owner, shape=shape, bound=largest if largest > 0 else None, name="X"
        )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.n_features_in_:
            raise ShapeError(f"X must have the shape (rows, {self.n_features_in_}), got {shape}")

    def __call__(
        self, X: SharedArray, *, batch_size: int | None = None, progress: bool | None = None
    ) -> SharedArray:
        """Evaluate the network.

        Parameters
        ----------
        X : SharedArray of shape (rows, features)
            Inside [low, high]: :meth:`share_rows` checks that at the owner.
        batch_size : int, optional
            Rows evaluated at once; by default as many as the session's memory limit allows.
            More rows than that take as many times the rounds.
        progress : bool, optional
            Whether to show a progress bar; by default on a terminal, after two seconds.

        Returns
        -------
        SharedArray of shape (rows, classes)
            The scores, with twice the format's fractional bits.

        Notes
        -----
        A hidden layer takes 5 rounds: its input opened under a mask, then truncation and ReLU in
        one. Max pooling of 2x2 adds 8, average pooling 1. The weights are opened under their masks
        once a session.
        """
        self.session.check_own(X, "X")
        self._check_shape(X.shape)
        self.session.prepare(
            lambda planned: self.twin(planned)(
                planned.twin(X), batch_size=batch_size, progress=False
            )
        )
        rows = X.shape[0]
        size = self.rows_at_once() if batch_size is None else integer("batch_size", batch_size, 1)
        if rows <= size:
            return self._evaluate(X)
        from tqdm import tqdm  # here, so that importing nn stays light

        with tqdm(
            total=rows,
            desc="encrypted evaluation",
            unit="row",
            disable=None if progress is None else not progress,
            delay=0.0 if progress else 2.0,
        ) as bar:
            pieces = []
            for start in range(0, rows, size):
                pieces.append(self._evaluate(X[start : start + size]))
                bar.update(pieces[-1].shape[0])
        return linear.concatenate(pieces)

    def _evaluate(self, x: Any) -> SharedArray:
        form = self.session.format
        for number, layer in enumerate(self.layers, start=1):
            with self.session.layer(f"{number} {layer!r}"):
                x = layer(x)
                if x.frac_bits >= form.frac_bits:
                    # What the check before sharing has shown.
                    x = x.with_integer_bound(form.bound << (x.frac_bits - form.frac_bits))
        return x

    def rows_at_once(self) -> int:
        """Return how many rows fit in the session's memory limit."""
        shape: tuple[int, ...] = (self.n_features_in_,)
        most = 1
        for layer in self.layers:
            most = max(most, layer.shared_words(shape, self.session.size))
            shape = layer.output_shape(shape)
        return max(1, self.session.memory_limit // (8 * most))

    def reveal(self, to: str | None = None) -> MLP | None:
        """Reveal the weights to one party or to all, as a plain model.

        Parameters
        ----------
        to : str, optional
            The party that gets the model; default all.

        Returns
        -------
        MLP, or None where the party does not live

        Notes
        -----
        2 rounds and 16 bytes a parameter at most: weights that have guard bits are truncated to the
        format first.
        """
        from nn.layers import ReLU
        from nn.mlp import MLP  # which imports this module

        if any(not isinstance(layer, (Dense, ReLU)) for layer in self.layers):
            raise DtypeError("only a network of Dense and ReLU layers can be revealed as an MLP")
        arrays = parameters(self.layers)
        flat = self.session.reveal(linear.concatenate([a.reshape(-1) for a in arrays]), to)
        if flat is None:
            return None
        stops = np.cumsum([a.size for a in arrays])
        pieces = [
            part.reshape(a.shape)
            for part, a in zip(np.split(flat, stops[:-1]), arrays, strict=True)
        ]
        model = MLP.from_parameters(pieces, classes=self.classes_)
        model.input_range_ = (self.low, self.high)
        return model

    def predict(self, X: SharedArray, *, to: str | None = None) -> Any:
        """Reveal the label of each row, and nothing else.

        Parameters
        ----------
        X : SharedArray of shape (rows, features)
        to : str, optional
            The party that learns the labels; default all.

        Returns
        -------
        ndarray of shape (rows,)
            None where `to` does not live.
        """
        self.session.check_own(X, "X")
        self._check_shape(X.shape)
        self.session.prepare(lambda planned: self.twin(planned).predict(planned.twin(X), to=to))
        found = self(X).argmax(axis=1).reveal(to)
        return None if found is None else self.classes_[found]

    def twin(self, planned: Session) -> SharedModel:
        """Return this model in a plan's session, see :meth:`mpc.Session.prepare`."""
        layers = [
            layer.with_parameters([planned.twin(p) for p in layer.parameters])
            for layer in self.layers
        ]
        return SharedModel(planned, layers, self.classes_, self.n_features_in_, self.low, self.high)
