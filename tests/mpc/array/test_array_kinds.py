"""What looks like an array of real numbers and is none is refused wherever arrays enter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import mpc
import nn

MASKED = np.ma.array([1.0, -999.0, 3.0], mask=[False, True, False])
ROWS = np.ma.array(np.ones((4, 3)), mask=np.eye(4, 3, dtype=bool))
LABELS = np.ma.array([0, 1, 0, 1], mask=[False, True, False, False])
MODEL = nn.MLP.from_parameters([np.ones((3, 2)), np.zeros(2)])


def classifier() -> Any:
    return nn.SecureMLPClassifier((2,), max_iter=1, random_state=0).fit(np.eye(3), [0, 1, 0])


ENTRIES: dict[str, Callable[[mpc.Session, mpc.SharedArray], object]] = {
    "share": lambda s, x: s.share(MASKED, "alice"),
    "share, in a list": lambda s, x: s.share([MASKED, MASKED], "alice"),
    "split": lambda s, x: mpc.split(LABELS),
    "+": lambda s, x: x + MASKED,
    "*": lambda s, x: x * MASKED,
    "@": lambda s, x: x @ MASKED,
    "@, left": lambda s, x: MASKED @ x,
    "<": lambda s, x: x < MASKED,
    "maximum": lambda s, x: np.maximum(x, MASKED),
    "where": lambda s, x: np.where(MASKED > 0, x, x),
    "where, operand": lambda s, x: np.where(x > 0, MASKED, x),
    "clip": lambda s, x: np.clip(x, MASKED, None),
    "index": lambda s, x: x[LABELS],
    "one_hot": lambda s, x: nn.one_hot(LABELS),
    "fit, X": lambda s, x: nn.MLP((3, 2)).fit(ROWS, [0, 1, 0, 1]),
    "fit, y": lambda s, x: nn.MLP((3, 2)).fit(np.ones((4, 3)), LABELS),
    "fit, classes": lambda s, x: nn.MLP((3, 2)).fit(np.ones((2, 3)), [0, 1], classes=LABELS[:2]),
    "predict": lambda s, x: MODEL.predict(ROWS),
    "score": lambda s, x: MODEL.score(np.ones((4, 3)), LABELS),
    "audit": lambda s, x: MODEL.audit(ROWS),
    "take_rows": lambda s, x: MODEL.take_rows(ROWS),
    "range": lambda s, x: MODEL.share(s, "alice", low=MASKED, high=1000),
    "parameters": lambda s, x: nn.MLP.from_parameters([ROWS, np.zeros(3)]),
    "share_rows": lambda s, x: MODEL.share(s, "alice").share_rows(ROWS, "bob"),
    "compare": lambda s, x: nn.compare(MODEL, MODEL.share(s, "alice"), ROWS),
    "estimator, fit": lambda s, x: nn.SecureMLPClassifier().fit(ROWS, [0, 1, 0, 1]),
    "estimator, y": lambda s, x: nn.SecureMLPClassifier().fit(np.ones((4, 3)), LABELS),
    "estimator, predict": lambda s, x: classifier().predict(ROWS),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_masked_arrays_are_refused(entry: str) -> None:
    with mpc.Session() as s:
        x = s.share([1.0, 2.0, 3.0], owner="alice")
        with pytest.raises(mpc.DtypeError, match=r"masked array.*filled"):
            ENTRIES[entry](s, x)


@pytest.mark.parametrize(
    "x",
    [
        np.array([1, None, 3], dtype=object), np.array(["2020-01-01"], "M8[D]"),
        np.zeros(3, "m8[s]"), np.array([1 + 2j]), np.zeros(3, [("a", float)]),
        np.array(["1.0"]), sparse.eye(3), sparse.eye_array(3),
    ],
    ids=lambda x: f"{type(x).__name__} {x.dtype.kind}",
)  # fmt: skip
def test_other_kinds_are_refused(x: Any) -> None:
    with mpc.Session() as s:
        shared = s.share(np.ones((3, 3)), owner="alice")
        for attempt in (
            lambda: s.share(x, "alice"),
            lambda: shared * x,
            lambda: shared + x,
            lambda: MODEL.predict(x),
            lambda: MODEL.share(s, "alice").share_rows(x, "bob"),
        ):
            with pytest.raises(mpc.DtypeError, match=r"real numbers|dense"):
                attempt()


def test_tables_with_missing_values_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    for column in (
        pandas.Series([1, None, 3], dtype="Int64"), pandas.Series([1.0, None, 3.0], dtype="Float64"),
        pandas.Series([True, None, False], dtype="boolean"),
    ):  # fmt: skip
        with mpc.Session() as s:
            with pytest.raises(
                (mpc.RangeError, mpc.DtypeError), match=r"no missing values|finite, got nan"
            ):
                s.share(column, "alice")
            with pytest.raises(
                (mpc.RangeError, mpc.DtypeError), match=r"no missing values|finite, got nan"
            ):
                s.share([1.0, 2.0, 3.0], "alice") * column


def test_columns_of_tables_are_operands_on_either_side() -> None:
    pandas = pytest.importorskip("pandas")
    column = pandas.Series([1.0, 2.0, 3.0])
    table = pandas.DataFrame(np.arange(6.0).reshape(2, 3))
    with mpc.Session() as s:
        x = s.share([2.0, 0.5, -1.0], owner="alice")
        np.testing.assert_array_equal((column * x).reveal(), [2.0, 1.0, -3.0])
        np.testing.assert_array_equal((x * column).reveal(), [2.0, 1.0, -3.0])
        np.testing.assert_array_equal((column - x).reveal(), [-1.0, 1.5, 4.0])
        np.testing.assert_array_equal((column > x).reveal(), [0, 1, 1])
        np.testing.assert_array_equal((table * x).reveal(), [[0, 0.5, -2], [6, 2, -5]])
        # pandas asks for an array here before it asks who else could do it.
        with pytest.raises(mpc.RevealError, match="left operands of other libraries"):
            table @ x


def test_an_index_out_of_range_names_the_axis_of_the_array() -> None:
    with mpc.Session() as s:
        x = s.share(np.ones((2, 3)), owner="alice")
        for key, message in (
            (5, "5 is out of bounds for axis 0 with size 2"),
            ((0, 5), "5 is out of bounds for axis 1 with size 3"),
            ((0, 0, 0), "array is 2-dimensional, but 3 were indexed"),
            ([0, 7], "7 is out of bounds for axis 0 with size 2"),
            (np.array([True]), "along axis 0; size of axis is 2"),
        ):
            with pytest.raises(mpc.ShapeError, match=message):
                x[key]
