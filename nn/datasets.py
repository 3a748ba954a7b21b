"""Data sets: handwritten digits of 28x28 and 8x8 pixels, idx files, and one-hot targets.

The loaders return ``X_train, X_test, y_train, y_test``: rows of pixels in [0, 1] and int64 labels.
"""

from __future__ import annotations

import gzip
import os
import secrets
import socket
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nn.checks import float_dtype, integer
from nn.initialisation import RandomState, generator
from ring.errors import ArgumentError, DataError, DtypeError, RangeError, ShapeError

__all__ = [
    "DataUnavailableError",
    "load_digits_8x8",
    "load_idx",
    "load_mnist",
    "one_hot",
]

Split = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]

_IDX_PARTS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
_MNIST_ROWS = 70_000
_MNIST_TRAIN_ROWS = 60_000
_MNIST_PIXELS = 784
_CACHE_NAME = "mnist_784_sotto.npz"
_TIMEOUT_SECONDS = 30.0
# No idx file of digits comes near; a header that says more is damaged.
_LARGEST_IDX_BYTES = 2**31


class DataUnavailableError(DataError):
    """A data set is neither on this machine nor to be fetched from where it is published."""


def load_mnist(
    data_home: str | os.PathLike[str] | None = None, *, dtype: DTypeLike = np.float32
) -> Split:
    """Load MNIST: 60,000 handwritten digits to train on and 10,000 to test with.

    The first call takes the data from OpenML through scikit-learn, or from scikit-learn's own
    cache, and parses it, which takes about a minute and 1 GB. The result is kept in the same
    folder, as a file of 14 MB that later calls load in well under a second.

    Parameters
    ----------
    data_home : path, optional
        Scikit-learn's data folder, by default that of the environment variable
        ``SCIKIT_LEARN_DATA`` or ``~/scikit_learn_data``; or a folder with the four original idx
        files, see `load_idx`.
    dtype : float32 or float64, default=float32
        Of the pixels.

    Returns
    -------
    X_train, X_test : ndarray of shape (60000, 784), (10000, 784)
        Pixels in [0, 1].
    y_train, y_test : ndarray of shape (60000,), (10000,)
        Digits, int64.

    Raises
    ------
    DataUnavailableError
        If the data is not on this machine and cannot be fetched.
    DataError
        If the data is not MNIST's, or a file is damaged.
    DtypeError
        If `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import nn
    >>> X_train, X_test, y_train, y_test = nn.load_mnist()  # doctest: +SKIP
    >>> X_train.shape, y_train[:5]  # doctest: +SKIP
    ((60000, 784), array([5, 0, 4, 1, 9]))
    """
    dtype = float_dtype(dtype)
    home = _data_home(data_home)
    if any(_idx_path(home, name).is_file() for pair in _IDX_PARTS for name in pair):
        split = load_idx(home, dtype=dtype)
        _check_mnist_split(home, split)
        return split
    cache = home / _CACHE_NAME
    images, labels = _read_cache(cache) or _fetch_mnist(home, cache)
    train, test = slice(_MNIST_TRAIN_ROWS), slice(_MNIST_TRAIN_ROWS, None)
    y = labels.astype(np.int64)
    return _scaled(images[train], dtype), _scaled(images[test], dtype), y[train], y[test]


def load_idx(folder: str | os.PathLike[str], *, dtype: DTypeLike = np.float32) -> Split:
    """Load images and labels from idx files, the format in which MNIST was published.

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``,
        ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``, each as it is or
        unpacked, then without ``.gz``.
    dtype : float32 or float64, default=float32
        Of the pixels.

    Returns
    -------
    X_train, X_test : ndarray of shape (rows, pixels)
        Pixels in [0, 1].
    y_train, y_test : ndarray of shape (rows,)
        Labels, int64.

    Raises
    ------
    DataError
        If a file is missing or damaged, or the files do not fit together.
    DtypeError
        If `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import nn
    >>> X_train, X_test, y_train, y_test = nn.load_idx("mnist")  # doctest: +SKIP
    """
    dtype = float_dtype(dtype)
    home = Path(folder).expanduser()
    parts: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
    for images_name, labels_name in _IDX_PARTS:
        images_path, labels_path = _idx_path(home, images_name), _idx_path(home, labels_name)
        images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{labels_path} must have one label for each of the {len(images)} images in "
                f"{images_path.name}, got {len(labels)}"
            )
        if parts and images.shape[1:] != parts[0][0].shape[1:]:
            raise DataError(
                f"{images_path} must have images of {parts[0][0].shape[1:]} pixels like the "
                f"training images, got {images.shape[1:]}"
            )
        parts.append((images, labels))
    (train, y_train), (test, y_test) = parts
    return (
        _scaled(train.reshape(len(train), -1), dtype),
        _scaled(test.reshape(len(test), -1), dtype),
        y_train.astype(np.int64),
        y_test.astype(np.int64),
    )


def load_digits_8x8(
    *,
    test_size: float | int = 0.25,
    random_state: RandomState = 0,
    dtype: DTypeLike = np.float32,
) -> Split:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels, split by class.

    Parameters
    ----------
    test_size : float or int, default=0.25
        Part of the images to test with, or their number.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState, default=0
        Seeds the split.
    dtype : float32 or float64, default=float32
        Of the pixels.

    Returns
    -------
    X_train, X_test : ndarray of shape (rows, 64)
        Pixels in [0, 1]; 1,347 and 450 rows by default.
    y_train, y_test : ndarray of shape (rows,)
        Digits, int64.

    Raises
    ------
    ArgumentError
        If `test_size` leaves a part too small to hold each digit.
    DtypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> import nn
    >>> X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    >>> X_train.shape, X_test.shape
    ((1347, 64), (450, 64))
    """
    dtype = float_dtype(dtype)
    # Scikit-learn takes no numpy.random.Generator, and seeds below 2**32 only.
    if isinstance(random_state, (int, np.integer)):
        seed = integer("random_state", random_state, 0) % 2**32
    else:
        seed = int(generator(random_state).integers(2**32))
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    X, y = (pixels / 16).astype(dtype), digits.astype(np.int64)
    try:
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=test_size, random_state=seed, stratify=y
        )
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"test_size must be a fraction between 0 and 1 or a number of images, and leave at "
            f"least one image of each digit in both parts, got {test_size!r}"
        ) from error
    return X_train, X_test, y_train, y_test


def one_hot(y: ArrayLike, classes: int | None = None) -> NDArray[np.int64]:
    """Return integer labels as rows that are 1 at the label and 0 elsewhere.

    Parameters
    ----------
    y : array_like of int, of shape (rows,)
        Labels from 0 to `classes` - 1.
    classes : int, optional
        Number of columns; by default the largest label plus 1.

    Returns
    -------
    ndarray of shape (rows, classes), int64

    Raises
    ------
    DtypeError
        If `y` or `classes` is not of integers.
    ShapeError
        If `y` does not have one axis, or is empty while `classes` is not given.
    RangeError
        If a label is negative or not below `classes`.
    ArgumentError
        If `classes` is below 1.

    Examples
    --------
    >>> import nn
    >>> nn.one_hot([2, 0])
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ShapeError(f"y must have one axis (one label a row), got shape {labels.shape}")
    if not labels.size and classes is None:
        raise ShapeError("y must have at least one label when classes is not given, got none")
    # An empty list has a float dtype, but no float in it.
    if labels.size and labels.dtype.kind not in "iu":
        raise DtypeError(f"y must hold integers, got {labels.dtype}")
    columns = int(labels.max()) + 1 if classes is None else integer("classes", classes, 1)
    bad = (labels < 0) | (labels >= columns)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        rule = "be 0 or more" if classes is None else f"be from 0 to {columns - 1}"
        raise RangeError(f"y must {rule}, got {labels[row]} in row {row}")
    result = np.zeros((len(labels), columns), dtype=np.int64)
    result[np.arange(len(labels)), labels.astype(np.int64)] = 1
    return result


def _scaled(pixels: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    X = pixels.astype(dtype)
    X /= 255
    return X


def _data_home(data_home: str | os.PathLike[str] | None) -> Path:
    # As sklearn.datasets.get_data_home, whose import would take longer than loading the cache.
    if data_home is None:
        data_home = os.environ.get("SCIKIT_LEARN_DATA", os.path.join("~", "scikit_learn_data"))
    home = Path(data_home).expanduser()
    if home.exists() and not home.is_dir():
        raise DataError(f"data_home must be a folder, got the file {home}")
    return home


def _idx_path(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: magic number, one size a dimension, then the bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise DataError(
                    f"{path} must start with a header of {4 + 4 * dimensions} bytes, "
                    f"got {len(header)} bytes in all"
                )
            magic, *shape = (int(number) for number in np.frombuffer(header, dtype=">u4"))
            # 8 says unsigned bytes, the last byte the number of dimensions.
            if magic != 0x800 + dimensions:
                raise DataError(
                    f"{path} must have the magic number {0x800 + dimensions}, got {magic}"
                )
            size = 1
            for length in shape:
                size *= length
            if not 0 < size <= _LARGEST_IDX_BYTES:
                raise DataError(
                    f"{path} must have sizes of at least 1 and at most {_LARGEST_IDX_BYTES} bytes "
                    f"in all, got {shape}"
                )
            content = stream.read(size + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(content) != size:
        got = f"{len(content)}" if len(content) < size else "more"
        raise DataError(f"{path} must hold {size} bytes after its header {shape}, got {got}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _check_mnist_split(folder: Path, split: Split) -> None:
    pixels = split[0].shape[1]
    if pixels != _MNIST_PIXELS:
        raise DataError(f"{folder} must hold images of 28x28 pixels, got {pixels} pixels an image")
    largest = int(max(split[2].max(), split[3].max()))
    if largest > 9:
        raise DataError(f"{folder} must hold the digits 0 to 9 as labels, got {largest}")


def _check_mnist(images: NDArray[Any], labels: NDArray[Any]) -> None:
    if images.shape != (_MNIST_ROWS, _MNIST_PIXELS) or labels.shape != (_MNIST_ROWS,):
        raise DataError(
            f"MNIST must have {_MNIST_ROWS} images of {_MNIST_PIXELS} pixels and as many labels, "
            f"got shapes {images.shape} and {labels.shape}"
        )
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        raise DataError(
            f"MNIST must be kept as unsigned bytes, got {images.dtype} and {labels.dtype}"
        )
    if labels.max() > 9:
        raise DataError(f"MNIST must have the digits 0 to 9 as labels, got {labels.max()}")


def _read_cache(cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return the kept images and labels, or None if there are none or they are damaged."""
    try:
        with np.load(cache, allow_pickle=False) as content:
            images, labels = content["images"], content["labels"]
        _check_mnist(images, labels)
    except FileNotFoundError:
        return None
    # What NumPy and zipfile raise on a file that was cut or changed.
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        BadZipFile,
        NotImplementedError,
        zlib.error,
        DataError,
    ) as error:
        _say(f"{cache} is damaged ({error}); making it again")
        return None
    return images, labels


def _write_cache(cache: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    # Renaming is atomic: another process sees the whole file or none.
    unfinished = cache.with_name(f".{cache.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as stream:
            np.savez_compressed(stream, images=images, labels=labels)
        os.replace(unfinished, cache)
    except OSError as error:
        _say(f"MNIST could not be kept in {cache} ({error}); the next call parses it again")
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _fetch_mnist(home: Path, cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from sklearn.datasets import fetch_openml

    _say(
        "getting MNIST through scikit-learn: a download if it is not there, then about a minute "
        "and 1 GB of memory to parse it; this happens once"
    )
    try:
        with _socket_timeout(_TIMEOUT_SECONDS), warnings.catch_warnings():
            # Scikit-learn warns at each attempt; the one error below says it all.
            warnings.simplefilter("ignore")
            pixels, digits = fetch_openml(
                "mnist_784",
                version=1,
                # The default parser needs pandas.
                parser="liac-arff",
                as_frame=False,
                return_X_y=True,
                data_home=str(home),
                n_retries=1,
            )
    except (OSError, HTTPException) as error:
        raise DataUnavailableError(
            f"MNIST is not in {home} and cannot be fetched from openml.org "
            f"({str(error) or type(error).__name__}); data_home may name a folder that has it"
        ) from error
    except ValueError as error:
        raise DataError(f"MNIST from openml.org cannot be parsed: {error}") from error
    images, labels = _as_bytes("pixels", pixels), _as_bytes("labels", digits)
    _check_mnist(images, labels)
    _write_cache(cache, images, labels)
    return images, labels


def _as_bytes(name: str, values: Any) -> NDArray[np.uint8]:
    # Labels arrive as the strings '0' to '9'.
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "biuf":
        try:
            numbers = numbers.astype(np.int64)
        except (TypeError, ValueError) as error:
            raise DataError(f"MNIST's {name} must be numbers: {error}") from None
    result = numbers.astype(np.uint8)
    if not np.array_equal(result, numbers):
        wrong = numbers[result != numbers].flat[0]
        raise DataError(f"MNIST's {name} must be integers from 0 to 255, got {wrong}")
    return result


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let new sockets give up after `seconds`; scikit-learn would wait for ever."""
    before = socket.getdefaulttimeout()
    if before is None:
        socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _say(message: str) -> None:
    print(f"sotto: {message}", file=sys.stderr, flush=True)
