"""Versions of what is installed."""

from __future__ import annotations

from importlib import metadata

import sotto_mpc

__all__ = ["own_version", "version"]


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """Return Sotto's version."""
    return sotto_mpc.__version__
