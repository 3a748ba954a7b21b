"""A network on shares: the same layers, with shared arrays for parameters."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session, SharedArray
from mpc.core.cost import Spent
from mpc.core.errors import DtypeError, RangeError, RevealError, SessionError, ShapeError
from mpc.protocols import linear
from mpc.workers.spread import jobs
from nn.core.checks import check_names, integer
from nn.core.progress import progress_bar
from nn.fixed_point.audit import check_fits
from nn.fixed_point.inputs import Floats, InputScale, ScaledRows, check_inside
from nn.layers import Layer
from nn.layers.normalisation import folded
from nn.losses.links import probabilities
from nn.shared.range import RangeWatch
from nn.shared.workers import Answer, evaluate
from nn.training.steps import parameters
from ring.real_arrays import real_array

__all__ = ["SharedModel", "plain_form_of", "share_layers"]


def share_layers(
    session: Session,
    layers: Sequence[Layer],
    owner: str,
    low: ArrayLike,
    high: ArrayLike,
    inputs: InputScale | None = None,
) -> list[Layer]:
    """Check that no layer can leave the fixed-point range, then share every parameter.

    Batch normalisation is folded into the layer before it, and dropout left out. `inputs` is the
    scale that is folded into the layers, and in which `low` and `high` are.

    Raises
    ------
    RangeError
        If a parameter or an output can leave the range on inputs in [low, high]; the message
        names the layer and a format that would hold it. Nothing is shared then.
    """
    session.number(owner, "owner")
    lows, highs = np.asarray(low, np.float64), np.asarray(high, np.float64)
    layers = folded(layers)
    check_fits(layers, lows, highs, session.format, inputs)
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
    low, high : float, or array of shape (features,)
        Range of the inputs for which the model was found to stay inside the fixed-point format.
        It is public. Rows whose public bound is beyond it are refused.
    inputs : InputScale, optional
        In which scale rows are shared; follows from the range.
    link : str, optional
        How scores become probabilities, see :mod:`nn.losses.links`.
    scores : bool
        Whether the model's owner lets scores and probabilities be revealed. So it is for a model
        that was trained on shares: whoever takes part could reveal its weights.

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

    # Of the model that was shared, see nn.models.model.Model.
    feature_names_in_: NDArray[Any] | None = None
    # Looks at each layer's output, where it is not known beforehand to be in range.
    range: RangeWatch | None = None

    def __init__(
        self,
        session: Session,
        layers: Sequence[Layer],
        classes: NDArray[Any],
        n_features: int,
        low: float | Floats,
        high: float | Floats,
        *,
        inputs: InputScale | None = None,
        link: str | None = None,
        scores: bool = False,
    ) -> None:
        self.session = session
        self.layers = list(layers)
        self.classes_ = classes
        self.n_features_in_ = n_features
        self.low, self.high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        self.inputs = inputs
        self.link = link
        self.scores = scores
        self.validation_scores_: list[float] = []
        self.validation_losses_: list[float] = []
        self.epoch_costs_: list[Spent] = []

    def __repr__(self) -> str:
        parties = ", ".join(self.session.parties)
        span = f"[{self.low.min():g}, {self.high.max():g}]"
        return f"{type(self).__name__}({self.layers}, inputs={span}, parties={parties})"

    def share_rows(
        self, X: ArrayLike | None, owner: str, *, rows: int | None = None
    ) -> SharedArray | ScaledRows:
        """Share rows of input, after checking them against the range of the model.

        Parameters
        ----------
        X : array_like of shape (rows, features), or None where `owner` does not live
        owner : str
            The data owner, a computing party.
        rows : int, optional
            How many rows are coming, where `X` is None.

        Returns
        -------
        SharedArray, or ScaledRows
            The latter for a model with a range for each feature: then the owner scales every
            feature to [-1, 1], by a public power of two.

        Raises
        ------
        RangeError
            If a value lies outside [low, high]; the message names it and its index.
        ShapeError
            If the rows do not have the model's features.
        ArgumentError
            If the rows are a table whose columns have other names, or another order.
        """
        shape = None if rows is None else (rows, self.n_features_in_)
        if X is not None:
            check_names(X, self.feature_names_in_)
            values = real_array(X, "X")
            if values.dtype.kind != "f":
                values = values.astype(np.float64)
            self._check_shape(values.shape)
            check_inside(values, self.low, self.high)
            X = values if self.inputs is None else self.inputs.apply(values)
        shared = self.session.share(X, owner, shape=shape, bound=self.row_bound(), name="X")
        return shared if self.inputs is None else ScaledRows(shared, self.inputs)

    def rows_from_shares(self, shares: NDArray[np.uint64]) -> SharedArray | ScaledRows:
        """Return rows that somebody outside has split, after checking and scaling them alike.

        Parameters
        ----------
        shares : uint64 array of shape (p, rows, features)
            Of the parties that live here, with the format's fractional bits.
        """
        self._check_shape(shares.shape[1:])
        form = self.session.format
        bound = math.ceil(self.row_bound() * 2**form.frac_bits)
        rows = SharedArray(self.session, shares, form.frac_bits, min(form.bound, bound))
        return rows if self.inputs is None else ScaledRows(rows, self.inputs)

    def row_bound(self) -> float:
        """Return the largest magnitude that shared rows can have, a unit where all are zero."""
        ends = [self.low, self.high]
        if self.inputs is not None:
            ends = [self.inputs.apply(end) for end in ends]
        return float(np.max(np.abs(ends), initial=2.0**-self.session.format.frac_bits))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.n_features_in_:
            raise ShapeError(f"X must have the shape (rows, {self.n_features_in_}), got {shape}")

    def _rows(self, X: SharedArray | ScaledRows) -> SharedArray:
        """Return the shared array behind rows in the scale of this model."""
        scale = X.inputs if isinstance(X, ScaledRows) else None
        array = self.session.check_own(X.scaled if isinstance(X, ScaledRows) else X, "X")
        if self.inputs is not None and scale is None:
            raise DtypeError(
                "X must be shared by share_rows: this model has a range for each feature and takes "
                "scaled rows"
            )
        if scale != self.inputs:
            raise SessionError("X was shared for a model with another range: use its share_rows")
        self._check_shape(array.shape)
        self._check_bound(array)
        return array

    def _check_bound(self, array: SharedArray) -> None:
        """Raise RangeError if rows can hold what the model was not found to be right for."""
        limit, form = self.row_bound(), self.session.format
        # In the format's unit, whatever that of the rows: a half in whole numbers is not one.
        most = math.ceil(limit * 2**form.frac_bits)
        if array.bound << form.frac_bits > most << array.frac_bits:
            raise RangeError(
                f"X must lie in [{self.low.min():g}, {self.high.max():g}], the range this model was"
                f" shared for, but its public bound is {array.bound / 2**array.frac_bits:g}; share"
                f" it by the model's share_rows, or by session.share(..., bound={limit:g})"
            )

    def __call__(
        self,
        X: SharedArray | ScaledRows,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Evaluate the network.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
            With a public bound inside [low, high]: :meth:`share_rows` checks the values at their
            owner and sets it.
        batch_size : int, optional
            Rows evaluated at once; by default as many as the session's memory limit allows.
            More rows than that take as many times the rounds.
        progress : bool, optional
            Whether to show a progress bar; by default on a terminal, after two seconds.
        n_jobs : int, optional
            Over how many workers of every party to spread the rows, see :meth:`predict`.

        Returns
        -------
        SharedArray of shape (rows, outputs)
            The scores or values, with twice the format's fractional bits.

        Raises
        ------
        RangeError
            If the rows' public bound is beyond the range that the model was shared for.

        Notes
        -----
        A hidden layer with ReLU takes 5 rounds: its input opened under a mask, then truncation and
        ReLU in one. Sigmoid or tanh in its place make it 9. Max pooling of 2x2 adds 8, average
        pooling 1. The weights are opened under their masks once a session.
        """
        array = self._rows(X)
        n_jobs = jobs(self.session, n_jobs, len(array))
        if n_jobs != 1:
            return evaluate(self, array, "scores", n_jobs, batch_size=batch_size, progress=progress)
        self.prepare(X, SharedModel.__call__, batch_size=batch_size, progress=False)
        rows = array.shape[0]
        size = self.rows_at_once() if batch_size is None else integer("batch_size", batch_size, 1)
        if rows <= size:
            return self._evaluate(array)
        with progress_bar(rows, "encrypted evaluation", "row", progress) as bar:
            pieces = []
            for start in range(0, rows, size):
                pieces.append(self._evaluate(array[start : start + size]))
                bar.update(pieces[-1].shape[0])
        return linear.concatenate(pieces)

    def _evaluate(self, x: SharedArray) -> SharedArray:
        for output in self.outputs(x):
            x = output
        return x

    def outputs(self, x: SharedArray) -> Iterator[SharedArray]:
        """Yield each layer's output for rows in the scale of the model's inputs."""
        form = self.session.format
        self._check_bound(x)
        for number, layer in enumerate(self.layers, start=1):
            # That values stay inside is what the check before sharing has shown, or what is watched.
            with self.session.layer(f"{number} {layer!r}"), self.session.range_policy.vouched():
                before, x = x, self.through(number - 1, x)
                if self.range is not None:
                    self.range.forward(f"layer {number}, {layer!r}", layer, before, x)
                if x.frac_bits >= form.frac_bits:
                    x = x.with_integer_bound(form.bound << (x.frac_bits - form.frac_bits))
            yield x

    def through(self, number: int, x: SharedArray) -> SharedArray:
        """Return one layer's output, the first being number 0."""
        output: SharedArray = self.layers[number](x)
        return output

    def rows_at_once(self) -> int:
        """Return how many rows fit in the session's memory limit."""
        shape: tuple[int, ...] = (self.n_features_in_,)
        most = 1
        for layer in self.layers:
            most = max(most, layer.shared_words(shape, self.session.size))
            shape = layer.output_shape(shape)
        return max(1, self.session.memory_limit // (8 * most))

    def reveal(self, to: str | None = None) -> Any:
        """Reveal the weights to one party or to all, as a plain model.

        Parameters
        ----------
        to : str, optional
            The party that gets the model; default all.

        Returns
        -------
        MLP, Sequential or Regressor, or None where the party does not live
            An MLP if the layers are Dense and ReLU in turn, a Regressor if the outputs are values.
            It takes rows as they are, in whatever scale they were shared.

        Notes
        -----
        2 rounds and 16 bytes a parameter at most: weights that have guard bits are truncated to the
        format first.
        """
        layers = self.reveal_layers(to)
        if layers is None:
            return None
        form = next(_PLAIN_FORMS[kind] for kind in type(self).__mro__ if kind in _PLAIN_FORMS)
        return form(self, layers)

    def reveal_layers(self, to: str | None = None) -> list[Layer] | None:
        """Reveal the weights as :meth:`reveal` does, as layers alone."""
        arrays = parameters(self.layers)
        flat = self.session.reveal(linear.concatenate([a.reshape(-1) for a in arrays]), to)
        if flat is None:
            return None
        stops = np.cumsum([a.size for a in arrays])
        pieces = [
            part.reshape(a.shape)
            for part, a in zip(np.split(flat, stops[:-1]), arrays, strict=True)
        ]
        if self.inputs is not None:
            pieces[:2] = self.inputs.unfold(*pieces[:2])
        waiting = iter(pieces)
        return [
            layer.with_parameters([next(waiting) for _ in layer.parameters])
            for layer in self.layers
        ]

    def winners(
        self,
        X: SharedArray | ScaledRows,
        *,
        one_hot: bool = False,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Return the index of each row's class, or zeros and a one for it, still secret.

        As ``model(X).argmax(axis=1, one_hot=one_hot)``, which workers do for their own rows.
        """
        rows = self._rows(X)
        n_jobs = jobs(self.session, n_jobs, len(rows))
        if n_jobs == 1:
            return self(X, progress=progress, n_jobs=1).argmax(axis=1, one_hot=one_hot)
        answer: Answer = "one-hot" if one_hot else "classes"
        return evaluate(self, rows, answer, n_jobs, progress=progress)

    def predict(
        self, X: SharedArray | ScaledRows, *, to: str | None = None, n_jobs: int | None = None
    ) -> Any:
        """Reveal the label of each row, and nothing else.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        to : str, optional
            The party that learns the labels; default all.
        n_jobs : int, optional
            Over how many workers of every party to spread the rows: processes of its machine, or
            what ``joblib.parallel_config`` or ``parties.toml`` says. -1 for as many as every
            party has. Default: what ``parties.toml`` says, else 1. All parties give the same.

        Returns
        -------
        ndarray of shape (rows,), or None where no party lives that learns them

        Raises
        ------
        ArgumentError
            If `n_jobs` is not the same at all parties, or not 1 where all live in one process.
        WorkerError
            If workers are lost time and again, or there are none. The session goes on.
        """
        n_jobs = jobs(self.session, n_jobs, len(self._rows(X)))
        self.prepare(X, SharedModel.predict, to=to, n_jobs=n_jobs)
        winners = self.winners(X, n_jobs=n_jobs).reveal(to)
        return None if winners is None else self.classes_[winners]

    def decision_function(
        self, X: SharedArray | ScaledRows, *, to: str | None = None, n_jobs: int | None = None
    ) -> Any:
        """Reveal the scores of each row, if the model's owner has allowed it.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        to : str, optional
            The party that learns the scores; default all.
        n_jobs : int, optional
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        RevealError
            If the model was not shared with ``scores=True``.
        """
        if not self.scores:
            raise RevealError(
                "scores and probabilities tell more about the model than labels: its owner must "
                "allow them by share(..., scores=True)"
            )
        n_jobs = jobs(self.session, n_jobs, len(self._rows(X)))
        self.prepare(X, SharedModel.decision_function, to=to, n_jobs=n_jobs)
        return self(X, n_jobs=n_jobs).reveal(to)

    def predict_proba(
        self, X: SharedArray | ScaledRows, *, to: str | None = None, n_jobs: int | None = None
    ) -> Any:
        """Reveal the probability of each class, if the model's owner has allowed it.

        The scores are revealed, and made into probabilities by whoever learns them.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        to : str, optional
            The party that learns the scores; default all.
        n_jobs : int, optional
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        RevealError
            If the model was not shared with ``scores=True``.
        ArgumentError
            If the model has no probabilities.
        """
        probabilities(self.link, np.zeros((1, len(self.classes_))))  # before a round is spent
        scores = self.decision_function(X, to=to, n_jobs=n_jobs)
        return None if scores is None else probabilities(self.link, scores)

    def prepare(
        self, X: SharedArray | ScaledRows, program: Callable[..., object], **arguments: Any
    ) -> None:
        """Let the provider work ahead for ``program(model, X, **arguments)``, which is about to run.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        program : callable
            One that is there again for the next call, such as a method: its plan is kept.
        **arguments : hashable
        """
        rows = X.scaled if isinstance(X, ScaledRows) else X
        outlines = [x.outline() for x in (rows, *parameters(self.layers))]
        self.session.prepare(
            lambda planned: program(self.twin(planned), self.twin_rows(planned, X), **arguments),
            # A plan that is kept keeps no model.
            key=(weakref.ref(self), program, self.range is None, *arguments.items(), *outlines),
        )

    def twin(self, planned: Session) -> SharedModel:
        """Return this model in a plan's session, see :meth:`mpc.Session.prepare`."""
        twin = copy.copy(self)
        twin.session = planned
        twin.range = None if self.range is None else self.range.twin(planned)
        twin.layers = [
            layer.with_parameters([planned.twin(p) for p in layer.parameters])
            for layer in self.layers
        ]
        return twin

    def twin_rows(self, planned: Session, X: SharedArray | ScaledRows) -> SharedArray | ScaledRows:
        """Return rows in a plan's session."""
        if isinstance(X, ScaledRows):
            return ScaledRows(planned.twin(X.scaled), X.inputs)
        return planned.twin(X)


# What makes the plain model of a kind of shared model, from its layers once they are revealed.
_PLAIN_FORMS: dict[type[SharedModel], Callable[[Any, list[Layer]], Any]] = {}

Form = TypeVar("Form", bound=Callable[..., Any])


def plain_form_of(kind: type[SharedModel]) -> Callable[[Form], Form]:
    """Let a function make the plain models that ``reveal`` of a kind of shared model gives.

    A decorator. Plain models know how they are shared, so what makes them is in a module above
    them, :mod:`nn.models.revealing`.
    """

    def decorate(form: Form) -> Form:
        _PLAIN_FORMS[kind] = form
        return form

    return decorate
