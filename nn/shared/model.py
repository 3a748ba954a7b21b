"""A model on shares: the layers of the plain model, with shared arrays for parameters."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.cost import Spent
from mpc.core.errors import RevealError
from mpc.protocols import linear
from nn.core.checks import integer
from nn.core.progress import progress_bar
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.inputs import Floats, InputScale, ScaledRows
from nn.layers import Layer
from nn.layers.graph import rewired, run, run_all, words_at_once
from nn.layers.layer import parameters
from nn.losses.links import probabilities
from nn.shared.model_inputs import ModelInputs, Rows
from nn.shared.proof import RangeProof
from nn.shared.range import RangeWatch
from nn.shared.workers import Answer, evaluate

__all__ = ["SharedModel", "plain_model_of"]


class SharedModel(ModelInputs):
    """A model of which every computing party holds a share.

    Made by ``model.share(session, owner=...)``. Calling it on shared rows returns their scores as a
    shared array.

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
        The scale in which rows are shared, which follows from the range.
    link : {"softmax", "one_vs_rest", "normalised"}, optional
        How scores become probabilities, see :mod:`nn.losses.links`; None if they do not.
    scores : bool, default=False
        Whether scores and probabilities may be revealed, which the model's owner decides. They may
        be for a model that was trained on shares: its parties could reveal the weights themselves.
    bounds : Bounds, optional
        Limits of the layers' outputs, which every evaluation checks on shares, batch by batch: a
        value beyond is a RangeError at all parties, and there is no answer. Default: none, since
        interval bounds have shown that no value can leave the format.

    Attributes
    ----------
    validation_scores_, validation_losses_ : list of float
        Accuracy and mean loss on the validation data, revealed after each epoch of a training on
        shares; empty without validation data.
    epoch_costs_ : list of Spent
        Rounds, bytes and seconds of each epoch of a training on shares in this process, without
        the validation.

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

    # Checks each layer's output during a training; a model that was shared is checked beforehand.
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
        bounds: Bounds | None = None,
    ) -> None:
        self.session = session
        self.layers = rewired(layers, layers)
        for parameter in parameters(layers):
            # Before a training on shares they are public.
            if isinstance(parameter, SharedArray):
                parameter.kept = True
        self.classes_ = classes
        self.n_features_in_ = n_features
        self.low, self.high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        self.inputs = inputs
        self.link = link
        self.scores = scores
        self.bounds = bounds
        # In a worker, counts of failures that it does not open; None where they are opened.
        self.failures: list[SharedArray] | None = None
        # Whether somebody else has checked on shares that rows are in range.
        self.rows_are_checked = False
        self.validation_scores_: list[float] = []
        self.validation_losses_: list[float] = []
        self.epoch_costs_: list[Spent] = []

    def __repr__(self) -> str:
        parties = ", ".join(self.session.parties)
        span = f"[{self.low.min():g}, {self.high.max():g}]"
        return f"{type(self).__name__}({self.layers}, inputs={span}, parties={parties})"

    def __call__(
        self,
        X: Rows,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> Any:
        """Evaluate the network.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features), or dict of str to SharedArray
            By the names of the inputs, if there are several. With a public bound inside
            [low, high]: :meth:`share_rows` checks the values in their owner's process and sets it.
        batch_size : int, optional
            Rows evaluated at once; by default as many as the session's memory limit allows. The
            rounds below are for each batch.
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
            If the rows' public bound is beyond the range that the model was shared for; or, for a
            model with `bounds`, if a value left its limit. The parties learn that, and nothing else.
        ShapeError
            If the rows do not have the model's features.
        DtypeError, SessionError
            If the rows are no SharedArray, of another session, or in another model's scale.

        Notes
        -----
        A hidden layer with ReLU takes 4 rounds: one opens the layer's input under a mask, three are
        truncation and ReLU together. With sigmoid or tanh in place of ReLU it takes 8. Max pooling
        of 2x2 adds 6 rounds, average pooling 1. The weights are opened under their masks once a
        session. A model with `bounds` takes 5 rounds more, 8 for rows that no party
        has given; without a provider 7 to 14.
        """
        outputs = self.evaluated(X, batch_size=batch_size, progress=progress, n_jobs=n_jobs)
        return self.named(outputs)

    def named(self, outputs: SharedArray) -> Any:
        """Return what a call gives of the last layer's output."""
        return outputs

    def evaluated(
        self,
        X: Rows,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Return the last layer's output; arguments as for a call."""
        array = self.check_rows(X)
        n_jobs = self.session.worker_count(n_jobs, len(array))
        if n_jobs != 1:
            return evaluate(self, array, "scores", n_jobs, batch_size=batch_size, progress=progress)
        self.prepare(X, SharedModel.evaluated, batch_size=batch_size, progress=False, n_jobs=1)
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
        self._check_bound(x)
        proof = self._proof(x)
        output: SharedArray = run(self.layers, x, partial(self._layer_output, proof))
        if proof is not None:
            proof.finish(output, self.failures)
        return output

    def _proof(self, x: SharedArray) -> RangeProof | None:
        """Return the proof of an evaluation of rows in range; None if interval bounds hold."""
        if self.bounds is None:
            return None
        proof = RangeProof(self.session, self.layers, self.bounds)
        if not self.rows_are_checked:
            proof.begin(x, self.largest_row(x.frac_bits))
        return proof

    def for_checked_rows(self) -> Self:
        """Return this model for rows that were found in its range, on shares: its proof begins behind that.

        As :func:`mpc.protocols.intervals.groups_inside` finds it, with the ends of `encoded_range`. Workers
        check rows again.
        """
        if self.bounds is None:
            return self
        twin = copy.copy(self)
        twin.rows_are_checked = True
        return twin

    def outputs(self, x: SharedArray) -> list[SharedArray]:
        """Return each layer's output for rows in the scale of the model's inputs."""
        self._check_bound(x)
        proof = self._proof(x)
        found = run_all(self.layers, x, partial(self._layer_output, proof))
        if proof is not None:
            proof.finish(found[-1], self.failures)
        return found

    def _layer_output(
        self, proof: RangeProof | None, index: int, layer: Layer, x: Any
    ) -> SharedArray:
        """Return the output of a layer: here, and nowhere else, values of an evaluation are made."""
        form = self.session.format
        # Values stay in range: checked before sharing, proven, or watched during a training.
        with self.session.layer(self._names[index]), self.session.range_policy.vouched():
            if proof is not None:
                return proof.through(index, x, self.through)
            output = self.through(index, x)
            if self.range is not None:
                self.range.forward(f"layer {index + 1}, {layer!r}", layer, x, output)
            if output.frac_bits >= form.frac_bits:
                output = output.with_integer_bound(
                    form.bound << (output.frac_bits - form.frac_bits)
                )
        return output

    def through(self, number: int, x: Any) -> SharedArray:
        """Return the output of layer `number`, from 0 on, for its input `x`."""
        output: SharedArray = self.layers[number](x)
        return output

    def rows_at_once(self) -> int:
        """Return how many rows fit in the session's memory limit."""
        return max(1, self.session.memory_limit // (8 * self._row_words))

    @cached_property
    def _row_words(self) -> int:
        return words_at_once(self.layers, (self.n_features_in_,), self.session.size)

    @cached_property
    def _names(self) -> list[str]:
        return [f"{number} {layer!r}" for number, layer in enumerate(self.layers, start=1)]

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
            Its first layer takes rows that are not scaled.

        Raises
        ------
        PartyError
            If `to` is no party of the session.

        Notes
        -----
        At most 2 rounds and 16 bytes a parameter: weights with guard bits, as training leaves them,
        are truncated to the format before they are opened.
        """
        layers = self.reveal_layers(to)
        if layers is None:
            return None
        make = next(_PLAIN_MODELS[kind] for kind in type(self).__mro__ if kind in _PLAIN_MODELS)
        return make(self, layers)

    def reveal_layers(self, to: str | None = None) -> Sequence[Layer] | None:
        """Reveal the weights to one party or to all, as plain layers; None at other parties."""
        arrays = parameters(self.layers)
        flat = self.session.reveal(linear.concatenate([a.reshape(-1) for a in arrays]), to)
        if flat is None:
            return None
        stops = np.cumsum([a.size for a in arrays])
        pieces = [
            part.reshape(a.shape)
            for part, a in zip(np.split(flat, stops[:-1]), arrays, strict=True)
        ]
        remaining = iter(pieces)
        revealed = [
            layer.with_parameters([next(remaining) for _ in layer.parameters])
            for layer in self.layers
        ]
        plain = rewired(self.layers, revealed)
        return plain if self.inputs is None else self.inputs.unfold(plain)

    def winners(
        self,
        X: Rows,
        *,
        one_hot: bool = False,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Return the index of each row's class, or its one-hot vector, as a shared array.

        The same as ``model(X).argmax(axis=1, one_hot=one_hot)``; with `n_jobs` each worker does
        both steps for its own rows.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        one_hot : bool, default=False
        progress : bool, optional
            As for :meth:`__call__`.
        n_jobs : int, optional
            As for :meth:`predict`.

        Returns
        -------
        SharedArray of shape (rows,) or (rows, classes)
            Whole numbers.
        """
        rows = self.check_rows(X)
        n_jobs = self.session.worker_count(n_jobs, len(rows))
        if n_jobs == 1:
            return self(X, progress=progress, n_jobs=1).argmax(axis=1, one_hot=one_hot)
        answer: Answer = "one-hot" if one_hot else "classes"
        return evaluate(self, rows, answer, n_jobs, progress=progress)

    def predict(self, X: Rows, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Reveal the label of each row, and nothing else.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        to : str, optional
            The party that learns the labels; default all.
        n_jobs : int, optional
            Over how many workers of every party to spread the rows: processes on the party's
            machine, or on the cluster that ``joblib.parallel_config`` or ``parties.toml`` names.
            -1 takes as many as every party has. Default: the number in ``parties.toml``, else 1.
            All parties give the same number.

        Returns
        -------
        ndarray of shape (rows,), or None in a process whose parties do not learn the labels

        Raises
        ------
        ArgumentError
            If `n_jobs` is not the same at all parties, or not 1 where all live in one process.
        WorkerError
            If workers are lost time and again, or there are none. The session goes on.
        """
        n_jobs = self.session.worker_count(n_jobs, len(self.check_rows(X)))
        self.prepare(X, SharedModel.predict, to=to, n_jobs=n_jobs)
        winners = self.winners(X, n_jobs=n_jobs).reveal(to)
        return None if winners is None else self.classes_[winners]

    def decision_function(
        self, X: Rows, *, to: str | None = None, n_jobs: int | None = None
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
        n_jobs = self.session.worker_count(n_jobs, len(self.check_rows(X)))
        self.prepare(X, SharedModel.decision_function, to=to, n_jobs=n_jobs)
        return self(X, n_jobs=n_jobs).reveal(to)

    def predict_proba(self, X: Rows, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Reveal the probability of each class, if the model's owner has allowed it.

        The scores are revealed; each party that learns them computes the probabilities from them.

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

    def prepare(self, X: Rows, program: Callable[..., object], **arguments: Any) -> None:
        """Have the provider prepare the randomness of ``program(model, X, **arguments)``.

        The program is run on a plan first, see :meth:`mpc.Session.prepare`.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        program : callable
            About to be called. Its plan is kept under this object, so it should be the same one in
            the next call: a method or a function of a module, no lambda.
        **arguments : hashable
        """
        if not self.session.prepares():
            return
        parts = (
            X.values() if isinstance(X, dict) else [X.scaled if isinstance(X, ScaledRows) else X]
        )
        outlines = [x.outline() for x in (*parts, *parameters(self.layers))]
        self.session.prepare(
            lambda planned: program(self.twin(planned), self.twin_rows(planned, X), **arguments),
            # Weak, so that a kept plan does not keep the model alive.
            key=(weakref.ref(self), program, self.range is None, *arguments.items(), *outlines),
        )

    def twin(self, planned: Session) -> SharedModel:
        """Return this model in a plan's session, see :meth:`mpc.Session.prepare`."""
        twin = copy.copy(self)
        twin.session = planned
        twin.range = None if self.range is None else self.range.twin(planned)
        twins = [
            layer.with_parameters([planned.twin(p) for p in layer.parameters])
            for layer in self.layers
        ]
        twin.layers = rewired(self.layers, twins)
        return twin


# By kind of shared model, the function that makes a plain model of it and its revealed layers.
_PLAIN_MODELS: dict[type[SharedModel], Callable[[Any, Sequence[Layer]], Any]] = {}

Maker = TypeVar("Maker", bound=Callable[..., Any])


def plain_model_of(kind: type[SharedModel]) -> Callable[[Maker], Maker]:
    """Register the function by which ``reveal`` makes a plain model of a kind of shared model.

    A decorator. The functions are in :mod:`nn.models.revealing`, which may import plain models;
    this module may not, since plain models import it.
    """

    def decorate(make: Maker) -> Maker:
        _PLAIN_MODELS[kind] = make
        return make

    return decorate
