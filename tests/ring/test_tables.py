"""Tables of pandas as arrays: columns of any numbers, and refusals by the column's name."""

import numpy as np
import pytest

from ring.errors import DtypeError, RangeError
from ring.real_arrays import plain_array, real_array

pd = pytest.importorskip("pandas")


def table(**columns):
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [
        ({"a": np.array([1.5, -2]), "b": np.array([True, False])}, np.float64),
        ({"a": np.array([1.5, -2], np.float32), "b": np.array([True, False])}, np.float32),
        ({"a": np.array([1, 2], np.int8), "b": np.array([True, False])}, np.int8),
        ({"a": pd.array([1, 2], "Int64"), "b": np.array([1, 0], np.int32)}, np.int64),
        ({"a": pd.array([1.5, 2], "Float32"), "b": pd.array([True, False], "boolean")}, np.float32),
        ({"a": pd.array([1.5, 2], "Float64"), "b": pd.array([3, 4], "UInt8")}, np.float64),
        ({"a": pd.array([1, 2], "Int64")}, np.int64),
        ({"a": pd.array([0, 2], pd.SparseDtype("int64")), "b": [0.5, 1.0]}, np.float64),
    ],
)
def test_columns_of_numbers_become_one_array(columns, dtype):
    found = real_array(table(**columns), "X")
    assert found.dtype == dtype
    expected = np.stack([np.asarray(c).astype(np.float64) for c in columns.values()], axis=1)
    assert np.array_equal(found, expected)


def test_large_integers_keep_their_last_bit():
    found = real_array(table(a=pd.array([2**62 + 1], "Int64"), b=np.array([True])), "X")
    assert found.tolist() == [[2**62 + 1, 1]]


@pytest.mark.parametrize(
    "column",
    [
        ["x", "y"], pd.Categorical([1, 2]), pd.to_datetime(["2020-01-01", "2021-01-01"]),
        pd.array([1 + 2j, 3]), np.array([1, "x"], object), np.array([True, None], object),
    ],
)  # fmt: skip
def test_other_columns_are_refused_by_name(column):
    with pytest.raises(DtypeError, match=r"X must hold numbers, got columns .*'city'.*get_dummies"):
        plain_array(table(age=[1, 2], city=column), "X")


def test_missing_values_are_refused_by_name():
    with pytest.raises(RangeError, match="column 'b' of X must have no missing values, got 1"):
        plain_array(table(a=[1.0, 2.0], b=pd.array([1, None], "Int64")), "X")
    with pytest.raises(RangeError, match="y must have no missing values, got 1"):
        plain_array(pd.Series(pd.array([1, None], "Int64")), "y")


def test_equal_names_of_columns_keep_their_places():
    twice = pd.concat([table(a=[1.5, 2.5]), table(a=[True, False])], axis=1)
    assert real_array(twice, "X").tolist() == [[1.5, 1], [2.5, 0]]


def test_series_stay_labels():
    assert plain_array(pd.Series(["a", "b"]), "y").tolist() == ["a", "b"]
    assert plain_array(pd.Series(pd.array([1, 0], "Int64")), "y").dtype == np.int64
    assert plain_array(pd.Series(["a", "b"]).astype("category"), "y").tolist() == ["a", "b"]


def test_tables_without_columns_or_rows():
    assert plain_array(pd.DataFrame(index=[0, 1]), "X").shape == (2, 0)
    assert plain_array(table(a=np.zeros(0), b=np.zeros(0, bool)), "X").shape == (0, 2)


def test_objects_that_are_whole_numbers_are_not_called_too_large():
    for values in (np.array([1, 2], object), np.array([], object)):
        with pytest.raises(DtypeError, match="^X must hold real numbers, got dtype object$"):
            real_array(values, "X")
    for values in ([1, 2**64], np.array([1] * 2000 + [-(2**70)], object)):
        with pytest.raises(RangeError, match=r"^X must be below 2\^63 in magnitude$"):
            real_array(values, "X")
