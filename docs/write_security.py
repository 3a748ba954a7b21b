"""Write the parameters in SECURITY.md from the code. A test checks that the page has them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mpc.two_party.extension import TILE
from mpc.two_party.rlwe_parameters import (
    DISTANCE_BITS,
    LENGTH,
    PARAMETERS,
    SECURITY_LIMITS,
    Parameters,
)
from mpc.two_party.rlwe_slots import MASK_BITS
from mpc.two_party.seeds import SECRET_BITS
from mpc.two_party.silent import SETS

PAGE = Path(__file__).resolve().parent.parent / "SECURITY.md"
MARKED = re.compile(r"(<!-- parameters -->\n).*?(<!-- end -->)", re.DOTALL)


def _row(parameters: Parameters) -> str:
    q = parameters.numbers.q
    primes = f"{parameters.count} primes of {parameters.prime_bits} bits"
    return (
        f"| {parameters.name} | {LENGTH} | {q.bit_length()} ({primes}) | {parameters.flood_bits} |"
    )


def parameters() -> str:
    """Return the text between the marks."""
    limits = ", ".join(f"{limit} ({source})" for source, limit in SECURITY_LIMITS.items())
    lines = [
        "| ring-LWE | N | bits of q | bits of the flood |",
        "|---|---:|---:|---:|",
        *map(_row, PARAMETERS),
        "",
        f"- Largest log2 q that the tables allow at N = {LENGTH}: {limits}.",
        f"- What answers show of an operand, over its life: a statistical distance of at most"
        f" 2^-{DISTANCE_BITS}. Masks of products over the integers: {MASK_BITS} bits.",
        f"- Transfers: a secret of {SECRET_BITS} bits in each direction, one key of the hash for every"
        f" {TILE} transfers.",
        "",
        "| LPN, silent transfers alone | trees | rows of the base | depth |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {t} | 2^{log} | {depth} |" for name, (t, log, depth) in SETS.items()),
    ]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the text of SECURITY.md with the parameters that the code has."""
    return MARKED.sub(lambda found: found[1] + parameters() + found[2], text)


def main() -> int:
    """Write it."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
