"""Archives of arrays as NumPy's ``savez`` writes them. Files that are read are not trusted."""

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

# The exceptions of reading an archive whose bytes were changed or cut.
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
        Permissions of a new file, before the process's umask.
    replace : bool
        Whether an existing file may be replaced.
    keep : Path, optional
        New path of the file that is replaced. Whenever the process is killed, at least one of the
        two paths has a whole file.

    Raises
    ------
    FileExistsError
        If the file exists and may not be replaced.
    DataError
        If the file cannot be written (no space, no permission, a folder). Then no part of it is left.
    """
    if path.is_dir():
        raise DataError(f"{path} cannot be written: it is a folder")
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
    """Read all arrays of an archive, using memory of a few times the file's size.

    Nothing is unpickled or decompressed; an array whose header states another size than its data has
    is refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file cannot be read, is no archive, or is damaged; the message begins with the path.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
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
        raise ValueError("an array of objects, or of another size than its header states")
    flat = np.frombuffer(data, dtype, offset=stream.tell()).copy()
    return flat.reshape(shape, order="F" if by_columns else "C")
