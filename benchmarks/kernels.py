"""Each kernel beside NumPy and beside what this machine can do, measured in the same run.

Two things measure the machine: a chain of multiplications and additions that never leaves the
registers, and a copy. The chain is run twice: with 64-bit products as the processor has them, and
with 32-bit products, of which a 64-bit one takes three where there is nothing better (AVX2).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import script
from llvmlite import ir
from machine import describe, facts, seconds, table
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

import ring
from ring.bits import add_polynomials, count_words
from ring.digits import add_tables, digits_of, read_tables

LANES = 8
CHAINS = 12
STEPS = 1_000_000


def chain(lanes: int, narrow: bool) -> Callable[[], None]:
    """Return a call of STEPS steps of CHAINS independent vectors, x = x * y + y each step."""
    word = ir.IntType(64)
    vector = ir.VectorType(word, lanes)

    @intrinsic
    def multiply_add(typingctx: Any, numbers: Any, steps: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])

            def at(k: int) -> Any:
                place = builder.gep(array.data, [ir.Constant(word, k * lanes)])
                return builder.bitcast(place, vector.as_pointer())

            low = ir.Constant(vector, [2**32 - 1] * lanes)
            y = builder.load(at(CHAINS), align=8)
            sums = [
                cgutils.alloca_once_value(builder, builder.load(at(k), align=8))
                for k in range(CHAINS)
            ]
            with cgutils.for_range(builder, args[1], intp=word):
                for place in sums:
                    x = builder.load(place)
                    product = (
                        builder.mul(builder.and_(x, low), builder.and_(y, low))
                        if narrow
                        else builder.mul(x, y)
                    )
                    builder.store(builder.add(product, y), place)
            for k, place in enumerate(sums):
                builder.store(builder.load(place), at(k), align=8)
            return context.get_dummy_value()

        return types.void(numbers, types.intp), generate

    @njit(nogil=True)
    def repeat(numbers: Any, steps: int) -> None:
        multiply_add(numbers, steps)

    numbers = np.arange(1, (CHAINS + 1) * lanes + 1, dtype=np.uint64)
    repeat(numbers, 1)
    return lambda: repeat(numbers, STEPS)


def words(*shape: int) -> NDArray[np.uint64]:
    """Return random words."""
    return np.frombuffer(os.urandom(8 * int(np.prod(shape))), np.uint64).reshape(shape).copy()


def measure(repeats: int) -> list[dict[str, Any]]:
    """Time every kernel, in turn with its reference.

    Returns
    -------
    list of dict
        Name, threads, seconds, operations, and the same for the reference, if any; "limit" is
        the operations a second that the machine could do, where one of the two measures fits.
    """
    rows: list[dict[str, Any]] = []
    steps = STEPS * CHAINS
    # The best of the vector widths counts: a processor may not do the widest one fastest.
    narrow = max(
        steps * lanes / min(seconds(chain(lanes, True), repeats)) / 3 for lanes in (4, LANES)
    )
    wide = max(steps * lanes / min(seconds(chain(lanes, False), repeats)) for lanes in (4, LANES))
    source, target = words(1 << 22), words(1 << 22)
    copied = source.nbytes / statistics.median(seconds(lambda: np.copyto(target, source), repeats))

    def add(
        name: str,
        unit: str,
        count: float,
        ours: Callable[[], Any],
        reference: Callable[[], Any] | None = None,
        label: str = "",
        limits: dict[str, float] | None = None,
        threads: tuple[int, ...] = (1,),
    ) -> None:
        cores = ring.get_num_threads()
        for used in threads:
            ring.set_num_threads(used)
            ours()
            taken, theirs = [], []
            for _ in range(repeats):
                taken += seconds(ours, 3)
                theirs += seconds(reference, 1) if reference else []
            rate = count / statistics.median(taken)
            rows.append(
                {
                    "kernel": name,
                    "threads": used,
                    "unit": unit,
                    "per_second": rate,
                    "per_second_min": count / max(taken),
                    "per_second_max": count / min(taken),
                    "reference": label,
                    "ratio_to_reference": rate / (count / statistics.median(theirs))
                    if theirs
                    else None,
                    "of_limit": {k: rate / (v * used) for k, v in (limits or {}).items()},
                }
            )
        ring.set_num_threads(cores)

    both = tuple(dict.fromkeys((1, ring.get_num_threads())))
    products = {"three 32-bit products": narrow, "64-bit products": max(wide, narrow)}
    for m, k, n in ((1000, 784, 128), (128, 784, 128), (1, 784, 128)):
        a, b = words(m, k), words(k, n)
        add(
            f"matrix product {m}x{k}x{n}", "multiply-adds", m * k * n,
            lambda a=a, b=b: ring.matmul(a, b), lambda a=a, b=b: a @ b, "np.matmul",
            products, both if m > 1 else (1,),
        )  # fmt: skip
    a, b = words(1000, 784), words(1000, 128)
    add(
        "a transposed: 784x1000x128", "multiply-adds", a.size * 128,
        lambda: ring.matmul(a.T, b), lambda: a.T @ b, "np.matmul", products, both,
    )  # fmt: skip
    copy = {"copy": copied / 8}
    reals = np.random.default_rng(0).normal(size=1 << 20)
    codes = ring.encode(reals)
    add("encode", "elements", reals.size, lambda: ring.encode(reals),
        lambda: np.rint(reals * 65536.0).astype(np.int64), "NumPy, no checks", copy)  # fmt: skip
    add("decode", "elements", reals.size, lambda: ring.decode(codes), None, "", copy)
    stream, out = ring.Stream(ring.fresh_key()), words(1 << 20)
    generator = np.random.PCG64(0)
    add("AES-CTR words", "elements", out.size, lambda: stream.fill(out, 1),
        lambda: generator.random_raw(out.size), "PCG64", copy)  # fmt: skip
    v, digits = words(1 << 20), digits_of((6, 5, 5, 5, 5, 5), True)
    tables = words(digits.count_table_words(1 << 20))
    planes = words(2, 8, count_words(1 << 20))
    add("comparison, tables dealt", "elements", v.size,
        lambda: add_tables(v, 16, digits, tables), threads=both)  # fmt: skip
    add("comparison, tables read", "elements", v.size,
        lambda: read_tables(v, 16, digits, tables, True, planes[0, :6], planes[1, :6]),
        threads=both)  # fmt: skip
    one = np.array([0, 1, 2, 3], np.int64)
    result = words(1, count_words(1 << 20))
    add("AND of four planes", "bits", v.size,
        lambda: add_polynomials(planes[0], planes[1], one[:1], one[:1] - 1,
                                np.array([0, 4], np.int64), one, result),
        lambda: planes[0, 0] & planes[0, 1] & planes[0, 2] & planes[0, 3], "NumPy")  # fmt: skip
    limits = {
        "multiply-adds a second, 32-bit products over 3": narrow,
        "multiply-adds a second, 64-bit products": wide,
        "bytes copied a second": copied,
    }
    return [{"limits": limits}, *rows]


def report(result: dict[str, Any]) -> str:
    """Return the results as tables."""
    limits = [("this machine, one core", "thousand million a second")]
    limits += [(name, f"{value / 1e9:.1f}") for name, value in result["limits"].items()]
    rows = [("kernel", "threads", "million a second", "spread", "to NumPy", "of the limit")]
    for row in result["kernels"]:
        shares = ", ".join(f"{v:.0%} ({k})" for k, v in row["of_limit"].items())
        ratio = row["ratio_to_reference"]
        rows.append(
            (
                row["kernel"],
                str(row["threads"]),
                f"{row['per_second'] / 1e6:,.0f}",
                f"{row['per_second_min'] / 1e6:,.0f}-{row['per_second_max'] / 1e6:,.0f}",
                f"{ratio:.1f}x {row['reference']}" if ratio else "-",
                shares or "-",
            )
        )
    return "\n\n".join([table(limits), table(rows), f"Machine: {describe(result['machine'])}"])


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each kernel (default: 7)")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    script.at_least_one(options, "repeats")
    first, *kernels = measure(options.repeats)
    result = {**first, "kernels": kernels, "machine": facts()}
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
