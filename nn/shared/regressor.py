"""A network on shares whose outputs are the predicted values."""

from __future__ import annotations

from typing import Any

from mpc.core.errors import DtypeError
from nn.shared.model import SharedModel
from nn.shared.model_inputs import Rows

__all__ = ["SharedRegressor"]


class SharedRegressor(SharedModel):
    """A shared model whose outputs are the predicted values.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`nn.shared.model.SharedModel`.
    flat : bool, default=True
        Whether a single output is predicted as a vector of shape (rows,).
    """

    def __init__(self, *args: Any, flat: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flat = flat

    def predict(self, X: Rows, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Reveal the predicted values of each row, and nothing else.

        Parameters
        ----------
        X : SharedArray or ScaledRows of shape (rows, features)
        to : str, optional
            The party that learns the values; default all.
        n_jobs : int, optional
            As for :meth:`SharedModel.predict`.

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)
            None in a process whose parties do not learn the values.
        """
        n_jobs = self.session.worker_count(n_jobs, len(self.check_rows(X)))
        self.prepare(X, SharedRegressor.predict, to=to, n_jobs=n_jobs)
        values = self(X, n_jobs=n_jobs).reveal(to)
        return values[:, 0] if self.flat and values is not None else values

    def decision_function(
        self, X: Rows, *, to: str | None = None, n_jobs: int | None = None
    ) -> Any:
        """Refuse: a regressor has no scores."""
        raise DtypeError("a regressor has no scores: use predict")

    predict_proba = decision_function
