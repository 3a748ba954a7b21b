"""Random programs: every result is right within the stated error, or refused.

``SOTTO_PROGRAMS=100000`` runs so many of them, instead of some hundreds.
"""

import os
from collections import Counter
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings

import mpc
from tests.helpers.program_fuzz import programs, run

PROGRAMS = int(os.environ.get("SOTTO_PROGRAMS", "400"))
NAMES = ("alice", "bob", "carol", "dave", "erin")
# Most programs run with two parties, as most people do.
SHARES = {2: 0.7, 3: 0.2, 5: 0.1}


# What a session does where bounds prove nothing; most check on the values.
MODES = ("values", "values", "values", "check", "warn")


@cache
def session_of(parties, form, mode):
    return mpc.Session(NAMES[:parties], frac_bits=form[0], int_bits=form[1], ranges=mode)


@pytest.mark.parametrize("parties", SHARES)
def test_random_programs(parties):
    ends = Counter()
    count = max(20, int(PROGRAMS * SHARES[parties]))

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize="SOTTO_PROGRAMS" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(MODES))
    def check(program):
        form, mode, inputs, steps = program
        ends[run(session_of(parties, form, mode), inputs, steps)[0]] += 1

    check()
    print(
        f"{parties} parties: {sum(ends.values())} programs, {ends['right']} right to the end,"
        f" refused at {dict(ends.most_common())}"
    )
    # Refusing everything would be no proof of anything.
    assert ends["right"] > 0.35 * sum(ends.values())
