"""Random programs with every party in a process of its own: right within the error, or refused by all.

``SOTTO_PROGRAMS=1000`` runs so many of them for each kind of session, instead of a few.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings

import mpc
from tests.helpers.program_fuzz import programs, run

COUNT = max(8, int(os.environ.get("SOTTO_PROGRAMS", "0")) // 100)


def run_all(session, drawn):
    """Run programs one after the other; a wrong result is an error."""
    return [run(session, inputs, steps) for _, _, inputs, steps in drawn]


def drawn_programs(form, count):
    found = []

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(programs(formats=(form,)))
    def collect(program):
        found.append(program)

    collect()
    return found


@pytest.mark.parametrize(
    ("parties", "form", "ranges"),
    [(2, (16, 15), "check"), (3, (16, 15), "error"), (2, (24, 13), "warn")],
    ids=lambda value: str(value),
)
def test_random_programs(parties, form, ranges):
    names = ("alice", "bob", "carol")[:parties]
    drawn = drawn_programs(form, COUNT)
    results = mpc.launch(
        run_all, names, inputs=dict.fromkeys(names, (drawn,)), frac_bits=form[0],
        int_bits=form[1], ranges=ranges, timeout=300,
    )  # fmt: skip
    # The parties agree on what is refused, and where.
    assert all(ends == results["alice"] for ends in results.values())
    assert len(results["alice"]) == len(drawn)
    assert any(end == "right" for end, _ in results["alice"])
