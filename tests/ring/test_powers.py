"""Powers of e^(16/22), in both ways, against decimal arithmetic."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from ring.powers import LOW_BITS, UNIT_BITS, UNITS, Y_BITS, hidden_power, power, power_tables

WHOLE = 1 << LOW_BITS
EXPONENTS = [0, 1, 4094, 4095, 4096, WHOLE // 2 - 1, WHOLE // 2, WHOLE - 2, WHOLE - 1]
EXPONENTS += [k << 12 for k in range(4096)] + [1 << k for k in range(LOW_BITS)]
EXPONENTS += np.random.default_rng(7).integers(0, WHOLE, 4000).tolist()


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(hidden_power, id="hidden"),
        pytest.param(
            lambda w, bits, less: power(w, bits, 3 if less else 1, power_tables()), id="tables"
        ),
    ],
)
@pytest.mark.parametrize(("bits", "less"), [(38, True), (22, True), (22, False)])
def test_powers_are_right_to_28_bits_and_a_unit(way, bits, less):
    with localcontext() as context:
        context.prec = 40
        step = Decimal(1 << UNIT_BITS) / UNITS / (1 << Y_BITS)
        for w in EXPONENTS:
            right = (step * (w + 1 - WHOLE * less)).exp() * (1 << bits)
            found = int(way(np.uint64(w), bits, less))
            assert abs(found - right) <= 1 + right / (1 << 28), w


def test_the_largest_power_fits_its_bits():
    assert int(hidden_power(np.uint64(WHOLE - 1), 38, True)) < 1 << 39
