"""Numbers of a fixed width in words, beside Python integers."""

import random

import numpy as np
import pytest

from ring.bit_fields import count_field_words, pack_fields, unpack_fields
from ring.errors import ArgumentError


def whole(values, width):
    return sum(int(v) << width * i for i, v in enumerate(values))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("width", [1, 2, 12, 31, 45, 48, 63, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 200, 1000])
def test_there_and_back(width, count):
    draw = random.Random(width * count)
    top = 2**width - 1
    values = [draw.choice((0, top, draw.randint(0, top))) for _ in range(count)]
    array = np.array(values, np.uint64)
    packed = pack_fields(array, width)
    assert packed.size == count_field_words(count, width) == -(-count * width // 64)
    assert whole(packed, 64) == whole(values, width)
    assert unpack_fields(packed, count, width).tolist() == values


@pytest.mark.parametrize("width", [0, 65, -1])
def test_widths(width):
    with pytest.raises(ArgumentError, match="width must be in"):
        pack_fields(np.zeros(1, np.uint64), width)
    with pytest.raises(ArgumentError, match="width must be in"):
        unpack_fields(np.zeros(1, np.uint64), 1, width)


def test_what_does_not_fit_is_refused():
    packed = pack_fields(np.arange(5, dtype=np.uint64), 12)
    for wrong in (packed[:0], np.append(packed, packed)):
        with pytest.raises(ArgumentError, match="5 numbers of 12 bits take 1 words"):
            unpack_fields(wrong, 5, 12)
    for bit in (60, 63):
        with pytest.raises(ArgumentError, match="must be zero"):
            unpack_fields(packed | np.uint64(1 << bit), 5, 12)
    assert unpack_fields(packed | np.uint64(1 << 59), 5, 12)[4] == 4 | 2**11
