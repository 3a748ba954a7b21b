"""Arithmetic in the ring of integers modulo 2^64: compiled, vectorised, and without parties.

Ring elements are uint64 arrays that wrap around; real numbers are fixed-point elements.
"""

import sotto_mpc

sotto_mpc.check(__name__)

from ring.bits import pack_bits, unpack_bits
from ring.errors import SottoError
from ring.fixed_point import FixedPoint, decode, encode
from ring.matmul import matmul
from ring.memory import keep_freed
from ring.streams import Stream, fresh_key
from ring.threads import get_num_threads, set_num_threads

__all__ = [
    "FixedPoint",
    "SottoError",
    "Stream",
    "decode",
    "encode",
    "fresh_key",
    "get_num_threads",
    "matmul",
    "pack_bits",
    "set_num_threads",
    "unpack_bits",
]

keep_freed()
