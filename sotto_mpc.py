"""The distribution sotto-mpc: its version, and whether its packages are its own.

Other distributions have packages named ``ring``, ``mpc`` or ``nn``, too. Python imports whichever it
finds first, so each of Sotto's packages asks here whether the other two are Sotto's. This module has
the name of the distribution, which no other has, and needs nothing.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from functools import cache

__all__ = ["ForeignPackageError", "__version__", "check", "foreign", "others"]

__version__ = "0.1.0.dev0"

# Each imports those before it.
_PACKAGES = ("ring", "mpc", "nn")
_MARK = b"sotto_mpc"
_WAY_OUT = (
    "Use sotto-mpc in a virtual environment of its own, or uninstall or rename the other, and then: "
    "pip install --force-reinstall --no-deps sotto-mpc"
)


class ForeignPackageError(ImportError):
    """A package that Sotto needs is another project's of the same name."""


def _place(package: str) -> str | None:
    """Return the first file of a package, its folder if it has no such file, None if it is not there.

    Nothing is imported.
    """
    module = sys.modules.get(package)
    if module is not None:
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
    else:
        spec = importlib.util.find_spec(package)
        if spec is None:
            return None
        file, folders = spec.origin, spec.submodule_search_locations or ()
    return file or next(iter(folders), "")


def _marked(path: str) -> bool:
    """Return whether a package's first file names this module, as those of Sotto do."""
    try:
        with open(path, "rb") as file:
            return _MARK in file.read()
    except OSError:  # in an archive
        return True


@cache
def foreign(package: str) -> str:
    """Return a sentence if the package of this name is not Sotto's, else ''."""
    path = _place(package)
    if path is None:
        return ""
    own = os.path.dirname(os.path.realpath(__file__))
    if os.path.isdir(path):
        return (
            f"{path} is what is left of a package {package!r}: it has no __init__.py. "
            "Remove that folder, and then: pip install --force-reinstall --no-deps sotto-mpc"
        )
    beside = os.path.dirname(os.path.dirname(os.path.realpath(path))) == own
    if beside and _marked(path):
        return ""
    return (
        f"{path} is not Sotto's package {package!r} but another project's of the same name "
        f"(Sotto is in {own}). {_WAY_OUT}"
    )


def check(package: str) -> None:
    """Check, for a package of Sotto that is being imported, that the others are Sotto's, too.

    Parameters
    ----------
    package : str
        Its name.

    Raises
    ------
    ForeignPackageError
        If one that it imports is another project's.

    Warns
    -----
    RuntimeWarning
        If another one is, which an import of it would find.
    """
    below = _PACKAGES[: _PACKAGES.index(package)]
    for name in _PACKAGES:
        problem = foreign(name) if name != package else ""
        if problem and name in below:
            raise ForeignPackageError(problem, name=name)
        if problem:
            _warn(problem)


@cache
def _warn(problem: str) -> None:
    # Once, although each package finds it.
    warnings.warn(problem, RuntimeWarning, stacklevel=3)


def others() -> str:
    """Return a sentence if other distributions have packages of Sotto's names, else ''.

    Sotto may work beside them: that depends on which came last, or first in the path. All that is
    installed is looked through, which takes longer than an import may.
    """
    from importlib import metadata  # which takes 30 ms

    found = {}
    for package, names in metadata.packages_distributions().items():
        rest = sorted(set(names) - {"sotto-mpc"})
        if package in _PACKAGES and rest:
            found[package] = f"{package!r} (of {', '.join(rest)})"
    if not found:
        return ""
    return (
        f"other distributions have packages of Sotto's names: {', '.join(sorted(found.values()))}. "
        f"Programs get one or the other, and to uninstall one can break the other. {_WAY_OUT}"
    )
