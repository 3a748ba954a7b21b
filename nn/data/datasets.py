"""Data sets: handwritten digits of 28x28 and 8x8 pixels.

The loaders return ``X_train, X_test, y_train, y_test``: rows of pixels in [0, 1] and int64 labels.
"""

from __future__ import annotations

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
from numpy.typing import DTypeLike, NDArray

from nn.core.checks import float_dtype, integer
from nn.data.idx_files import Split, has_idx, load_idx, scaled
from nn.layers.initialisation import RandomState, generator
from ring.errors import ArgumentError, DataError

__all__ = ["DataUnavailableError", "load_digits_8x8", "load_mnist"]

_MNIST_ROWS = 70_000
_MNIST_TRAIN_ROWS = 60_000
_MNIST_PIXELS = 784
_CACHE_NAME = "mnist_784_sotto.npz"
_TIMEOUT_SECONDS = 30.0


class DataUnavailableError(DataError):
    """A data set is not on this machine, and cannot be downloaded."""


def load_mnist(
    data_home: str | os.PathLike[str] | None = None, *, dtype: DTypeLike = np.float32
) -> Split:
    """Load MNIST: 60,000 handwritten digits to train on and 10,000 to test with.

    The first call downloads the data from OpenML through scikit-learn, or takes it from scikit-learn's
    cache, and parses it, which takes about a minute and 1 GB of memory. The result is kept in the
    same folder, as a file of 14 MB that later calls load in well under a second.

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
        If the data is not on this machine and cannot be downloaded.
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
    if has_idx(home):
        split = load_idx(home, dtype=dtype)
        _check_mnist_split(home, split)
        return split
    cache = home / _CACHE_NAME
    images, labels = _read_cache(cache) or _fetch_mnist(home, cache)
    train, test = slice(_MNIST_TRAIN_ROWS), slice(_MNIST_TRAIN_ROWS, None)
    y = labels.astype(np.int64)
    return scaled(images[train], dtype), scaled(images[test], dtype), y[train], y[test]


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


def _data_home(data_home: str | os.PathLike[str] | None) -> Path:
    """Return the data folder; raise DataError if it is a file."""
    # As sklearn.datasets.get_data_home, whose import would take longer than loading the cache.
    if data_home is None:
        data_home = os.environ.get("SCIKIT_LEARN_DATA", os.path.join("~", "scikit_learn_data"))
    home = Path(data_home).expanduser()
    if home.exists() and not home.is_dir():
        raise DataError(f"data_home must be a folder, got the file {home}")
    return home


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
    """Return images and labels of the cache file, or None if it is missing or damaged."""
    try:
        with np.load(cache, allow_pickle=False) as content:
            images, labels = content["images"], content["labels"]
        _check_mnist(images, labels)
    except FileNotFoundError:
        return None
    # The exceptions of NumPy and zipfile for a file that was cut or changed.
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
            # Scikit-learn warns at each attempt; the error below is enough.
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
    """Return numbers as uint8; raise DataError, with `name`, if they do not fit."""
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
    """Set the default timeout of sockets, since scikit-learn sets none."""
    before = socket.getdefaulttimeout()
    if before is None:
        socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _say(message: str) -> None:
    print(f"sotto: {message}", file=sys.stderr, flush=True)
