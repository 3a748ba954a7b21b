"""Rows as the bodies of requests: JSON, CSV, NumPy's .npy and Arrow's streams.

Memory and time for any body are bounded by its size and the number of rows: nothing is unpickled or
decompressed, and no size that a body states is trusted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import MissingExtraError
from nn.gateway.problems import HttpError

__all__ = ["ARROW", "CSV", "JSON", "MEDIA_TYPES", "NPY", "Table", "read_rows", "write_npy"]

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
# Inputs of a body, at most; the number of rows counts those of all inputs.
_MOST_INPUTS = 64


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of shape (rows, features), and the names of the columns if the body has them.

    `inputs` holds the rows by the names of the inputs, if the body does; then `rows` has no columns.
    """

    rows: NDArray[Any]
    columns: tuple[str, ...] | None
    inputs: dict[str, NDArray[Any]] | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.rows if dtype is None else self.rows.astype(dtype)

    def __len__(self) -> int:
        return len(self.rows)


def read_rows(kind: str, data: bytes, most: int) -> Table:
    """Return the rows of a body.

    Parameters
    ----------
    kind : str
        The media type.
    data : bytes
    most : int
        Rows of a body, at most.

    Raises
    ------
    HttpError
        If the body breaks a rule; the message says which.
    """
    read = _READERS.get(kind)
    if read is None:
        raise HttpError(
            415,
            f"Content-Type must be one of {', '.join(MEDIA_TYPES)}, got {kind[:100]!r}",
            "MediaType",
        )
    table = read(data, most)
    if table.rows.ndim == 2 and table.columns is not None:
        columns = len(table.columns)
        if columns != table.rows.shape[1]:
            _refuse(f"columns names {columns} columns where rows have {table.rows.shape[1]}")
    _check_count(len(table.rows) if table.rows.ndim else 0, most)
    return table


def write_npy(array: NDArray[Any]) -> bytes:
    """Return an array as a .npy file, labels of dtype object as strings."""
    if array.dtype == object:
        array = array.astype(str)
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _refuse(rule: str) -> NoReturn:
    raise HttpError(400, rule, "Malformed")


def _check_count(rows: int, most: int) -> None:
    if rows > most:
        raise HttpError(
            413, f"a request may have at most {most} rows, got {rows}: send several", "TooManyRows"
        )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _json(data: bytes, most: int) -> Table:
    # Lists need twenty times the memory of their text, so they are counted before parsing.
    several = data.count(b"{") > 1
    lists = data.count(b"[") - (_MOST_INPUTS if several else 2)
    if lists > most or data.count(b"{") > 2:
        _check_count(lists, most)
        _refuse("the body must be one object with rows, and columns perhaps, or with inputs")
    try:
        read = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        _refuse("the body is nested too deeply")
    except ValueError as error:
        # The decoder's message has a position, and at most one word of the text.
        _refuse(f"the body is no JSON: {error}")
    if isinstance(read, dict) and set(read) == {"inputs"}:
        return _named(read["inputs"], most)
    if not isinstance(read, dict) or not {"rows"} <= set(read) <= {"rows", "columns"}:
        _refuse("the body must be an object with rows, and columns perhaps, or with inputs")
    columns = read.get("columns")
    if columns is not None and (
        not isinstance(columns, list) or not all(isinstance(name, str) for name in columns)
    ):
        _refuse("columns must be a list of strings")
    array = _numbers("rows", read["rows"], 0 if columns is None else len(columns))
    return Table(array, None if columns is None else tuple(columns))


def _named(inputs: Any, most: int) -> Table:
    """Return the rows of an object of inputs, each with rows of its own."""
    if not isinstance(inputs, dict) or not inputs or len(inputs) > _MOST_INPUTS:
        _refuse(f"inputs must be an object of 1 to {_MOST_INPUTS} lists of rows, by name")
    arrays = {name: _numbers(f"inputs[{name[:100]!r}]", rows, 0) for name, rows in inputs.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        _refuse("all inputs must have as many rows as each other")
    _check_count(sum(counts.values()), most)
    return Table(np.empty((next(iter(counts.values())), 0)), None, arrays)


def _numbers(name: str, rows: Any, width: int) -> NDArray[np.float64]:
    """Return rows of numbers; `width` is how many columns there are if there is no row."""
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        _refuse(f"{name} must be a list of lists of numbers")
    for k, row in enumerate(rows):
        if len(row) != len(rows[0]):
            _refuse(f"{name} must be of one length: row 0 has {len(rows[0])}, row {k} {len(row)}")
        for j, value in enumerate(row):
            if type(value) not in (int, float):
                _refuse(f"{name} must hold numbers alone: row {k}, column {j} is none")
    try:
        array = np.array(rows, np.float64)
    except OverflowError:
        _refuse(f"{name} must hold numbers that a double can hold")
    return array if rows else array.reshape(0, width)


def _csv(data: bytes, most: int) -> Table:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse("a CSV must be UTF-8")
    lines = csv.reader(io.StringIO(text, newline=""))
    columns: tuple[str, ...] | None = None
    rows: list[NDArray[np.float64]] = []
    try:
        for line in lines:
            if not line:
                continue
            if columns is None and not rows and not all(_is_number(cell) for cell in line):
                columns = tuple(cell.strip() for cell in line)
                continue
            _check_count(len(rows) + 1, most)
            if rows and len(line) != len(rows[0]):
                _refuse(f"line {lines.line_num} has {len(line)} cells, others {len(rows[0])}")
            for j, cell in enumerate(line):
                if not _is_number(cell):
                    _refuse(f"line {lines.line_num}, cell {j + 1} must be a number")
            rows.append(np.array([float(cell) for cell in line]))
    except csv.Error as error:
        _refuse(f"line {lines.line_num} is no CSV: {error}")
    width = len(rows[0]) if rows else len(columns or ())
    return Table(np.array(rows, np.float64).reshape(len(rows), width), columns)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _npy(data: bytes, most: int) -> Table:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception:  # NumPy's reader of a header raises many kinds
        _refuse("the body is no .npy file of version 1 or 2")
    if dtype.hasobject or dtype.kind not in "biuf" or dtype.itemsize > 8:
        _refuse(f"a .npy file must hold numbers of at most 64 bits, got {dtype.str[:40]}")
    if len(shape) != 2:
        _refuse(f"a .npy file must have two axes (rows, features), got {len(shape)}")
    held, wanted = len(data) - file.tell(), shape[0] * shape[1] * dtype.itemsize
    if min(shape) < 0 or held != wanted:
        _refuse(f"a .npy file of this shape must have {wanted} bytes of numbers, got {held}")
    _check_count(shape[0], most)
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return Table(flat.reshape(shape, order="F" if fortran else "C"), None)


def _arrow(data: bytes, most: int) -> Table:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError(
            "Arrow bodies need pyarrow: pip install 'sotto-mpc[gateway]'"
        ) from None
    from nn.gateway.arrow_messages import is_compressed

    batches, count = [], 0
    try:
        whole = pyarrow.py_buffer(data)
        for k, message in enumerate(pyarrow.ipc.MessageReader.open_stream(whole)):
            wanted = "record batch" if k else "schema"
            if message.type != wanted:
                _refuse(f"an Arrow stream must have a {wanted} here, got a {message.type}")
            # Compressed, a few bytes may hold any number of rows.
            if k and is_compressed(message.metadata.to_pybytes()):
                _refuse("an Arrow stream must not be compressed")
        stream = pyarrow.ipc.open_stream(whole)
        schema = stream.schema
        names = tuple(str(name) for name in schema.names)
        for field in schema:
            if not _is_numeric(pyarrow, field.type):
                _refuse(f"column {str(field.name)[:100]!r} must hold numbers, got {field.type}")
        for batch in stream:
            if batch.num_rows < 0:  # valid for pyarrow
                _refuse("a record batch must have rows")
            batch.validate(full=True)
            count += batch.num_rows
            _check_count(count, most)
            for name, column in zip(names, batch.columns, strict=True):
                if column.null_count:
                    _refuse(f"column {name[:100]!r} must have a number in every row")
            batches.append(batch)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, StopIteration):
        _refuse("the body is no Arrow stream")
    rows = np.empty((count, len(names)), np.float64)
    first = 0
    for batch in batches:
        for j, column in enumerate(batch.columns):
            rows[first : first + batch.num_rows, j] = column.to_numpy(zero_copy_only=False)
        first += batch.num_rows
    return Table(rows, names)


def _is_numeric(pyarrow: Any, kind: Any) -> bool:
    # No booleans: eight of them are one byte in the body, and 64 bytes as doubles.
    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))


_READERS: dict[str, Callable[[bytes, int], Table]] = {
    JSON: _json,
    CSV: _csv,
    NPY: _npy,
    ARROW: _arrow,
}
MEDIA_TYPES: Sequence[str] = tuple(_READERS)
