"""Archives of arrays as NumPy's ``savez`` writes them, read with no trust in what they say."""

from __future__ import annotations

import io
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ring.errors import DataError

__all__ = ["read", "write"]

Arrays = dict[str, NDArray[Any]]

# What reading an archive with any of its bytes changed or missing raises.
_DAMAGE = (
    AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def write(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    *,
    mode: int = 0o666,
    replace: bool,
    keep: Path | None = None,
) -> None:
    """Write an archive in whole or not at all.

    Parameters
    ----------
    path : Path
    arrays : dict of str to array
    mode : int
        Permissions, less those that the process's mask takes away.
    replace : bool
        Whether a file that is there may be replaced; FileExistsError otherwise.
    keep : Path, optional
        What a file that is replaced is called from then on. Whenever the process is killed, there
        is a file in whole under one of the two names.

    Raises
    ------
    FileExistsError
        If the file is there and may not be replaced.
    DataError
        If it cannot be written: no space, no permission. Nothing is left then.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        if replace and keep is not None and path.exists():
            path.replace(keep)
        if replace:
            part.replace(path)
        else:
            path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def read(path: Path) -> Arrays:
    """Read all arrays of an archive, in no more memory than a few times the file's size.

    Nothing is unpickled or decompressed, and no array may be said to be larger than it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is no archive, or damaged; the message begins with the path.
    """
    content = path.read_bytes()
    arrays: Arrays = {}
    left = len(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                left -= max(entry.compress_size, entry.file_size)
                if entry.compress_type != zipfile.ZIP_STORED or left < 0:
                    raise ValueError(f"{entry.filename} is compressed")
                arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged, or no archive of arrays: {error}") from None
    return arrays


def _array(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("an array of objects, or of another size than is said")
    flat = np.frombuffer(data, dtype, offset=stream.tell()).copy()
    return flat.reshape(shape, order="F" if by_columns else "C")
