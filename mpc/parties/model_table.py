"""Models in parties.toml: the folders of a party's shares, and the models that a client may request.

``[parties.alice.models]`` maps names of models to folders, and is read by alice's own service alone.
``models = ["network"]`` of a client lists models, and every party enforces it.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpc.core.errors import ConfigurationError
from mpc.parties.toml_text import TomlText, decode, quoted, replace_file

__all__ = ["allowed_models", "check_model_name", "model_folders", "set_folder"]

_LONGEST_NAME = 100


def check_model_name(name: str) -> None:
    """Raise ConfigurationError unless `name` can be a model's name."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or "=" in name:
        raise ConfigurationError(
            f"a model's name must have 1 to {_LONGEST_NAME} printable characters and no =, got"
            f" {name[:200]!r}"
        )


def model_folders(
    text: TomlText, table: tuple[str, ...], values: Mapping[str, Any]
) -> dict[str, Path]:
    """Return a party's folders by model."""
    found = values.get("models", {})
    if not isinstance(found, dict):
        raise text.error(table, "models", "models of a party must be a table of folders by name")
    inner = (*table, "models")
    for name, folder in found.items():
        # For the error's line: a table of its own, or an inline table on one line.
        apart = f"[{'.'.join(inner)}]" in text.text
        place, key = (inner, name) if apart else (table, "models")
        _check(text, place, key, name)
        if not isinstance(folder, str) or not folder:
            raise text.error(place, key, f"{name} must be a folder, a string, got {folder!r}")
    return {name: text.path.parent / folder for name, folder in found.items()}


def allowed_models(
    text: TomlText, table: tuple[str, ...], values: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """Return the names of the models that a client may request, None for all."""
    found = values.get("models")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise text.error(table, "models", f"models must be a list of names, got {found!r}")
    for name in found:
        _check(text, table, "models", name)
    return tuple(found)


def _check(text: TomlText, table: tuple[str, ...], key: str, name: str) -> None:
    try:
        check_model_name(name)
    except ConfigurationError as error:
        raise text.error(table, key, str(error)) from None


def set_folder(path: Path, party: str, name: str, folder: Path | None) -> Callable[[], None]:
    """Write the folder of a party's shares of a model into parties.toml; None removes the entry.

    Returns
    -------
    callable
        Undoes the change.

    Raises
    ------
    ConfigurationError
        If the file cannot be written, has a layout that this function cannot change, or lacks the
        entry to remove: it stays as it is.
    """
    old = path.read_bytes()
    text = decode(path, old)
    data = tomllib.loads(text)
    models = data["parties"][party].setdefault("models", {})
    line = None
    if folder is None:
        if name not in models:
            raise ConfigurationError(
                f"[parties.{party}.models] in {path} has no {name!r}, only"
                f" {', '.join(models) or 'no model'}"
            )
        expected = copy.deepcopy(data)
        del expected["parties"][party]["models"][name]
    else:
        value = _written(path, folder)
        line = f"{quoted(name)} = {quoted(value)}"
        expected = copy.deepcopy(data)
        expected["parties"][party]["models"][name] = value
    changed = _with_line(text, ("parties", party, "models"), name, line)
    try:
        same = tomllib.loads(changed) == expected
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        todo = "write there yourself" if line else "take out there yourself"
        raise ConfigurationError(
            f"{path} is laid out in a way that cannot be changed here; {todo}:\n"
            f"  [parties.{party}.models]\n  {line or quoted(name)}"
        )
    mark = old[: len(old) - len(text.encode())]
    new = mark + changed.encode()
    replace_file(path, old, new)
    return lambda: replace_file(path, new, old)


def _written(path: Path, folder: Path) -> str:
    """Return a folder for parties.toml: relative to the file if below it, else absolute."""
    whole, place = folder.resolve(), path.resolve().parent
    return str(whole.relative_to(place)) if whole.is_relative_to(place) else str(whole)


def _with_line(text: str, table: tuple[str, ...], name: str, line: str | None) -> str:
    """Return the text with the line of key `name` in a table replaced or added; None removes it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    last = None  # the last line that belongs to the table
    inside = False
    for number, old in enumerate(lines):
        bare = old.strip()
        if bare.startswith("["):
            parts = bare.split("]")[0].strip("[").split(".")
            inside = tuple(part.strip().strip("\"'") for part in parts) == table
        if not inside or not bare:
            continue
        last = number
        if _key_of(bare) == name:
            lines[number] = "" if line is None else line + newline
            return "".join(lines)
    if line is None:
        return text
    if last is None:
        end = "" if not text or text.endswith("\n") else newline
        return f"{text}{end}{newline}[{'.'.join(table)}]{newline}{line}{newline}"
    if not lines[last].endswith("\n"):
        lines[last] += newline
    lines.insert(last + 1, line + newline)
    return "".join(lines)


def _key_of(line: str) -> str | None:
    try:
        return next(iter(tomllib.loads(line)), None)
    except tomllib.TOMLDecodeError:
        return None
