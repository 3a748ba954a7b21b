"""The settings of all in parties.toml: format, timeouts, workers, limits and network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mpc.core.errors import SottoError
from mpc.core.limits import Limits
from mpc.core.network import MEASURED, Network
from mpc.parties.toml_text import TomlText
from ring import FixedPoint

__all__ = ["SettingsText", "Timeouts", "Workers"]


@dataclass(frozen=True)
class Timeouts:
    """Timeouts, in seconds.

    Attributes
    ----------
    connect : float, default=30
        For the others to start, connect and agree.
    answer : float, default=60
        For an answer, counted from its last byte that arrived; at 1000 bytes a second, if they come more
        slowly.
    idle : float, default=3600
        For a client's next request; the service then closes the connection.
    """

    connect: float = 30.0
    answer: float = 60.0
    idle: float = 3600.0

    @property
    def party(self) -> float:
        """Seconds to wait for another party, which may be waiting for a lost process itself.

        Longer than `answer`, so that the party that waits for the lost process gives up first, and
        tells the others which one is lost.
        """
        return self.answer + max(2.0, self.answer / 4)


@dataclass(frozen=True)
class Workers:
    """The default number of workers over which each party spreads a prediction.

    Attributes
    ----------
    n_jobs : int, default=1
        1 for none, -1 for as many as joblib offers at every party.
    rows : int, default=1000
        Predictions of fewer rows stay in the party's own process.
    """

    n_jobs: int = 1
    rows: int = 1000


class SettingsText(TomlText):
    """A configuration's text, and the settings in it."""

    def format(self) -> FixedPoint:
        values = self.table(("format",), ("frac_bits", "int_bits"))
        try:
            return FixedPoint(values.get("frac_bits", 16), values.get("int_bits", 15))
        except SottoError as error:
            raise self.error(("format",), None, str(error)) from None

    def timeouts(self) -> Timeouts:
        table = ("timeouts",)
        values = self.table(table, ("connect", "answer", "idle"))
        return Timeouts(
            self.number(table, values, "connect", Timeouts.connect),
            self.number(table, values, "answer", Timeouts.answer),
            self.number(table, values, "idle", Timeouts.idle),
        )

    def workers(self) -> Workers:
        table = ("workers",)
        values = self.table(table, ("n_jobs", "rows"))
        n_jobs, rows = values.get("n_jobs", Workers.n_jobs), values.get("rows", Workers.rows)
        if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
            raise self.error(
                table,
                "n_jobs",
                f"n_jobs must be a whole number of at least 1, or -1, got {n_jobs!r}",
            )
        if type(rows) is not int or rows < 1:
            raise self.error(
                table, "rows", f"rows must be a whole number of at least 1, got {rows!r}"
            )
        return Workers(n_jobs, rows)

    def limits(self) -> Limits:
        table, defaults = ("limits",), Limits.defaults()
        values = self.table(table, tuple(defaults))
        return Limits(**{**defaults, **self.own_limits(table, values, tuple(defaults))})

    def own_limits(
        self, table: tuple[str, ...], values: Mapping[str, Any], names: tuple[str, ...]
    ) -> dict[str, int]:
        """Return the limits among the values of a table, by name."""
        found = {key: value for key, value in values.items() if key in names}
        for key, value in found.items():
            if type(value) is not int or value < 1:
                raise self.error(
                    table, key, f"{key} must be a whole number of at least 1, got {value!r}"
                )
        return found

    def network(self) -> Network | Literal["measured"] | None:
        table, keys = ("network",), ("round_trip", "megabits")
        values = dict(self.table(table, (*keys, "measure")))
        measure = values.pop("measure", False)
        if type(measure) is not bool:
            raise self.error(table, "measure", f"measure must be true or false, got {measure!r}")
        if measure and values:
            raise self.error(
                table,
                "measure",
                f"measure = true and {' and '.join(values)} = ... exclude each other",
            )
        if not values:
            return MEASURED if measure else None
        for key in keys:
            if key not in values:
                raise self.error(table, None, f"the network needs {key} = ...")
        return Network(
            self.number(table, values, "round_trip", 0.0),
            self.number(table, values, "megabits", 0.0, "Mbit/s"),
        )
