"""The error of models that cannot be converted."""

from __future__ import annotations

from ring.errors import ArgumentError

__all__ = ["ConversionError"]


class ConversionError(ArgumentError):
    """A model of another library cannot be converted: Sotto lacks a part of it."""
