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
# Most programs run with two parties, as most people do; some of them without a provider, and some on a
# network so slow that rounds are all that counts.
SLOW = mpc.Network(round_trip=10.0, megabits=1e6)
SHARES = {
    (2, "crypto", None): 0.7,
    (3, "crypto", None): 0.2,
    (5, "crypto", None): 0.1,
    (2, None, None): 0.1,
    (3, "crypto", SLOW): 0.1,
}


# What a session does where bounds prove nothing; most check on the values.
MODES = ("values", "values", "values", "check", "warn")


@cache
def session_of(parties, provider, network, form, mode):
    return mpc.Session(
        NAMES[:parties], frac_bits=form[0], int_bits=form[1], ranges=mode, provider=provider,
        network=network,
    )  # fmt: skip


@pytest.mark.parametrize(("parties", "provider", "network"), SHARES, ids=str)
def test_random_programs(parties, provider, network):
    ends = Counter()
    count = max(20, int(PROGRAMS * SHARES[parties, provider, network]))

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
        ends[run(session_of(parties, provider, network, form, mode), inputs, steps)[0]] += 1

    check()
    print(
        f"{parties} parties, provider {provider}, network {network}: {sum(ends.values())} programs,"
        f" {ends['right']} right to the end, refused at {dict(ends.most_common())}"
    )
    # Refusing everything would be no proof of anything.
    assert ends["right"] > 0.35 * sum(ends.values())
