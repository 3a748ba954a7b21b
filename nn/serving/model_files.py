"""A service's files of shares: the newest of each model, and the one in use until all parties have that."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpc.core.errors import ConfigurationError
from mpc.parties.configuration import Configuration
from nn.models.saved_shares import SharesFile

__all__ = ["ModelFiles"]


class ModelFiles:
    """A party's files of shares.

    Parameters
    ----------
    read : Configuration
        With the folders of ``[parties.NAME.models]``.
    me : str
        The party.
    given : dict of str to path
        Folders of further models, by name, from the command line.

    Raises
    ------
    DataError, ConfigurationError
        If a file is missing or damaged, or a model has two folders.

    Attributes
    ----------
    widest : int
        The largest number of features of any model.
    """

    def __init__(self, read: Configuration, me: str, given: Mapping[str, str | Path]) -> None:
        self._me = me
        self._given = {name: Path(folder) for name, folder in given.items()}
        self._lock = threading.Lock()
        self._newest: dict[str, SharesFile] = {}
        self._used: dict[str, SharesFile] = {}
        self.widest = 0
        self.take(self.read(read))

    def read(self, read: Configuration) -> dict[str, SharesFile]:
        """Return the files that a configuration names, by model; nothing changes."""
        folders = read.parties[self._me].folders
        for name in folders:
            if name in self._given:
                raise ConfigurationError(
                    f"model {name} is given by --model at the start of {self._me}, and in"
                    f" [parties.{self._me}.models] of {read.path}: take one of them out"
                )
        number = read.names.index(self._me)
        return {
            name: SharesFile(read.names, read.format, number, folder, read.security)
            for name, folder in {**self._given, **folders}.items()
        }

    def take(self, found: Mapping[str, SharesFile]) -> None:
        """Replace the newest files; a model that is not among them is removed."""
        with self._lock:
            self._newest = dict(found)
            self._used = {name: file for name, file in self._used.items() if name in found}
            self._measure()

    def settle(self, used: Mapping[str, SharesFile]) -> None:
        """Note the files that all parties use now."""
        with self._lock:
            self._used = {name: file for name, file in used.items() if name in self._newest}
            self._measure()

    def _measure(self) -> None:
        # Here, since every request asks for it.
        files = (*self._newest.values(), *self._used.values())
        self.widest = max((int(file.header["n_features"]) for file in files), default=0)

    def known(self) -> dict[str, list[SharesFile]]:
        """Return each model's files, the newest first."""
        with self._lock:
            found = {name: [file] for name, file in self._newest.items()}
            for name, file in self._used.items():
                if not np.array_equal(file.set_id, found[name][0].set_id):
                    found[name].append(file)
            return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models that have files here."""
        return tuple(self._newest)

    @property
    def pending(self) -> tuple[str, ...]:
        """The names of the models whose newest files not all parties have."""
        return tuple(
            name for name, files in self.known().items() if len(files) > 1 or name not in self._used
        )
