"""Reading a TOML file so that errors name the line, and replacing it atomically."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpc.core.errors import ConfigurationError
from mpc.transport.certificates import write_new

__all__ = ["TomlText", "decode", "quoted", "replace_file"]


def quoted(text: str) -> str:
    """Return a string as a TOML literal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def replace_file(path: Path, old: bytes, data: bytes) -> None:
    """Replace the contents `old` of a file by `data`, atomically, keeping mode and owner.

    Raises
    ------
    ConfigurationError
        If the file no longer holds `old`, or cannot be written: it stays as it is.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        before = path.stat()
        mode = before.st_mode & 0o777
        write_new([(part, data, mode)])
        if os.geteuid() == 0:  # for a service that runs as another user
            os.chown(part, before.st_uid, before.st_gid)
        part.chmod(mode)
        # One command at a time compares and replaces, or two could each lose what the other wrote.
        with _locked(path.parent):
            if path.read_bytes() != old:
                raise ConfigurationError(f"{path} has changed meanwhile: try again")
            part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it when the process ends."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def decode(path: Path, data: bytes) -> str:
    """Decode a file's UTF-8, dropping a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise ConfigurationError(
            f"{path} must be text in UTF-8{', got UTF-16' if utf16 else ''}: save it anew"
        ) from None


class TomlText:
    """The tables of a TOML file, with errors that name the line of a key."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        try:
            self.data = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    def error(self, table: Sequence[str], key: str | None, message: str) -> ConfigurationError:
        """Return an error that says in which line `key` of `table` stands."""
        inside = not table
        found = None
        for number, line in enumerate(self.text.splitlines(), start=1):
            bare = line.strip()
            if bare.startswith("["):
                head = [
                    part.strip().strip("\"'") for part in bare.split("]")[0].strip("[").split(".")
                ]
                inside = head == list(table)
                # A missing key is reported at its table's first line.
                found = number if inside else found
            elif (
                inside and key is not None and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*=", bare)
            ):
                found = number
                break
        where = f"{self.path}, line {found}" if found else str(self.path)
        return ConfigurationError(f"{where}: {message}")

    def table(self, table: tuple[str, ...], keys: Sequence[str]) -> dict[str, Any]:
        """Return a table, empty if it is not in the file; raise if it holds a key not in `keys`."""
        value: Any = self.data
        for part in table:
            value = value.get(part, {})
            if not isinstance(value, dict):
                raise self.error(table[:-1], part, f"{'.'.join(table)} must be a table")
        for key in value:
            if keys and key not in keys:
                raise self.error(table, key, f"no {key!r} goes here, only {', '.join(keys)}")
        return value

    def number(
        self,
        table: tuple[str, ...],
        values: Mapping[str, Any],
        key: str,
        default: float,
        unit: str = "seconds",
    ) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise self.error(
                table, key, f"{key} must be a positive number of {unit}, got {value!r}"
            )
        return float(value)
