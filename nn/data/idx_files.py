"""Idx files, the format in which MNIST was published."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nn.core.checks import float_dtype
from ring.errors import DataError

__all__ = ["Split", "has_idx", "load_idx", "scaled"]

Split = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]

_PARTS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
# More than any idx file of digits has; a header that states more is damaged.
_LARGEST_BYTES = 2**31


def load_idx(folder: str | os.PathLike[str], *, dtype: DTypeLike = np.float32) -> Split:
    """Load images and labels from idx files, the format in which MNIST was published.

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``,
        ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``, or the same files
        decompressed, without ``.gz``.
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
    for images_name, labels_name in _PARTS:
        images_path, labels_path = _path(home, images_name), _path(home, labels_name)
        images, labels = _read(images_path, 3), _read(labels_path, 1)
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
        scaled(train.reshape(len(train), -1), dtype),
        scaled(test.reshape(len(test), -1), dtype),
        y_train.astype(np.int64),
        y_test.astype(np.int64),
    )


def has_idx(folder: Path) -> bool:
    """Return whether the folder has any of the four files."""
    return any(_path(folder, name).is_file() for pair in _PARTS for name in pair)


def scaled(pixels: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return pixels, bytes from 0 to 255, as floats in [0, 1]."""
    X = pixels.astype(dtype)
    X /= 255
    return X


def _path(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
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
            if not 0 < size <= _LARGEST_BYTES:
                raise DataError(
                    f"{path} must have sizes of at least 1 and at most {_LARGEST_BYTES} bytes "
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
