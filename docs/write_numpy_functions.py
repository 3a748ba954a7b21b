"""Write docs/numpy-functions.md: NumPy's functions on secrets, their domains, errors and costs.

Rows and errors are those of the tests, see tests/helpers/numpy_cases.py; costs come from plans. A test
checks that the page is what this program writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import mpc  # noqa: E402
from mpc.array.numpy_functions import REFUSED, name_of  # noqa: E402
from tests.helpers.numpy_cases import SECTIONS, Case  # noqa: E402

PAGE = HERE / "numpy-functions.md"

INTRODUCTION = """\
# NumPy's functions

Written by `docs/write_numpy_functions.py` from the tests; do not edit.

`np.f(secret)` works on shared arrays for the functions below, and `secret.f()` where NumPy's arrays have
such a method, but for `resize` and `searchsorted`; `secret.topk(k)` gives the largest values and their
places, `secret.sort()` a new array. SciPy's `special.erf` and `special.expit` work, too, as
`secret.erf()` and `secret.sigmoid()` do.
Arguments that are no data (axes, shapes, indices, bins, fractions, exponents) are public. Results stay
secret.

- *Domain*: where the result is right. Outside it is refused or warned of, see `ranges` of `mpc.Session`.
- *Error*: the most by which a result may differ from the exact one of the encoded values, in the default
  format. A unit is 2^-16. Operands that are products are rounded to the format first, by up to a unit.
- *Rounds* and *bytes*: of two parties with a provider, for secrets that no party knows; the bytes that a
  party sends, for arrays of 4 x 6 elements unless another shape is given. *Alone*: rounds of two parties
  without a provider, those that make their transfers included.
"""

SORTING = """\

Sorting takes three ways: up to 64 values a row by their ranks, as in the table; more values are shuffled
and then compared; without a provider they go through a network of comparisons. Equal values keep their
order. See *shuffled sort* and *merge network* on the page [Protocols](protocols.md).
"""

REFUSALS = """\

## What is not there

Functions that are refused with a reason:

| function | why, and what stands in for it |
|---|---|
"""


def _cost(session: mpc.Session, case: Case) -> Any:
    """Return the cost of a use, without that of sharing."""
    arrays = case.arrays(np.random.default_rng(20))
    spent = []

    def program(planned: mpc.Session) -> None:
        secret = [planned.share(a, owner="alice") + 0 for a in arrays]
        before = planned.cost()
        result = case.call(*secret)
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, mpc.SharedArray):
                assert part.shares is not None  # has pending terms dealt
        spent.append((planned.cost() - before).total)

    session.plan(program)
    return spent[0]


def _rows(sessions: list[mpc.Session], cases: list[Case]) -> list[str]:
    lines = [
        "| function | domain | error | rounds | bytes | alone |",
        "|---|---|---|---:|---:|---:|",
    ]
    for case in cases:
        dealt, alone = (_cost(session, case) for session in sessions)
        name = f"`{case.name}`" + (
            f" {' x '.join(map(str, case.shape))}" if case.shape != (4, 6) else ""
        )
        cells = [name, case.domain.replace("|", "\\|"), case.stated.replace("|", "\\|")]
        cells += [str(dealt.rounds), f"{dealt.bytes_sent:,}", str(alone.rounds)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def page() -> str:
    """Return the whole page."""
    with mpc.Session() as dealt, mpc.Session(provider=None) as alone:
        lines = [INTRODUCTION]
        for title, cases in SECTIONS.items():
            lines += [f"## {title}", "", *_rows([dealt, alone], cases)]
            lines.append(SORTING if title == "Order" else "")
    lines.append(REFUSALS.strip("\n"))
    named: dict[str, list[str]] = {}
    for function, why in REFUSED.items():
        named.setdefault(why, []).append(f"`{name_of(function)}`")
    lines += [f"| {', '.join(names)} | {why} |" for why, names in named.items()]
    lines += [
        "",
        "Everything else that NumPy has is refused with the list of what is there. `np.where` with a",
        "secret condition takes both branches; `x[secret]` and `if secret` would reveal, and are refused.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
