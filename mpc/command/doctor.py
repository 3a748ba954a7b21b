"""``sotto doctor``: versions and processor of this machine, and a test of every protocol."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import sotto_mpc
from mpc.command.self_test import run_checks
from mpc.command.terminal import paint
from mpc.core.errors import SottoError
from mpc.core.versions import own_version, version
from mpc.launch import launch
from mpc.session import Session
from mpc.session_setup import PROVIDER
from ring import get_num_threads
from ring.compile import cache_folder
from ring.vectorised import cpu_features, vector_products

__all__ = ["examine"]

_NEEDED = ("numpy", "numba", "llvmlite", "cryptography", "scikit-learn", "threadpoolctl", "tqdm")
_EXTRAS = ("matplotlib", "onnx", "dask")
_FEWEST_PRODUCTS = 8
_REPORT = "Please report all of the above, unless a line says what to do."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _fact(name: str, value: str) -> None:
    print(f"  {name:<16}{value}")


def _title(text: str) -> None:
    print(f"\n{paint(text, 'bold')}")


class _Results:
    """Prints a line for each check, and counts those that fail."""

    failed = 0

    def add(self, what: str, detail: str, problem: str = "") -> None:
        mark = paint("FAILED", "red") if problem else paint("ok", "green") + "    "
        print(f"  {mark}  {what:<44}{problem or detail}".rstrip(), flush=True)
        self.failed += bool(problem)


def three_times_four(session: Session) -> float:
    """Multiply alice's 3 by bob's 4 on shares: a program for parties in processes of their own."""
    mine, theirs = session.me == "alice", session.me == "bob"
    x = session.share([3.0] if mine else None, owner="alice", shape=(1,))
    y = session.share([4.0] if theirs else None, owner="bob", shape=(1,))
    return float((x * y).relu().reveal()[0])


def _check_kernels(results: _Results) -> None:
    products = vector_products()
    if products is None:
        results.add("vector instructions", "cannot be told on this processor")
        return
    for name, count in products.items():
        what = f"matrix product ({name.strip('_').replace('_', ' ')})"
        # Without vector instructions results are right, but take several times as long.
        enough = count >= _FEWEST_PRODUCTS
        results.add(what, f"vectorised, {count} vector multiplications" if enough else
                    paint("right, but slow: not vectorised here", "yellow"))  # fmt: skip


def _check_protocols(results: _Results, provider: str | None) -> None:
    with Session(provider=provider) as session:
        for outcome in run_checks(session):
            detail = f"error {outcome.error:.0e}" if outcome.error else "exact"
            what = f"{outcome.check.name.replace('_', ' ')}: {outcome.check.what}"
            results.add(what, f"{detail:<14}{outcome.seconds:6.2f} s", outcome.problem)


def _check_processes(results: _Results, provider: str | None) -> None:
    start = time.perf_counter()
    problem = ""
    try:
        found = launch(three_times_four, timeout=120.0, provider=provider)
        if found != {"alice": 12.0, "bob": 12.0}:
            problem = f"3 times 4 gave {found}"
    except (SottoError, OSError) as error:
        problem = str(error)
    who = "alice, bob alone" if provider is None else "alice, bob, provider"
    results.add(f"{who} over TLS", f"{time.perf_counter() - start:.1f} s", problem)


def examine() -> int:
    """Print the report and run all checks; return 0 if all succeed, else 1."""
    print(paint(f"Sotto {own_version()}", "bold"))
    _fact("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in _NEEDED:
        _fact(name, version(name) or "not installed")
    for name in _EXTRAS:
        _fact(name, f"{version(name) or 'not installed'} (optional)")

    _title("Machine")
    _fact("processor", _processor())
    features = [name if there else f"no {name}" for name, there in cpu_features().items()]
    _fact("features", ", ".join(features) or "not known for this processor")
    _fact("cores", f"{os.cpu_count()}, of which Sotto uses {get_num_threads()}")

    _fact("compiled code", cache_folder() or "not kept: each process compiles anew")

    results = _Results()
    _title("Packages")
    results.add("ring, mpc and nn are Sotto's", "and no other's", sotto_mpc.others())

    _title("Kernels")
    _check_kernels(results)

    _title("Protocols, each against NumPy (alice, bob and a provider in this process)")
    _check_protocols(results, PROVIDER)

    _title("The same without a provider (alice and bob alone)")
    _check_protocols(results, None)

    _title("Parties as processes")
    for provider in (PROVIDER, None):
        _check_processes(results, provider)

    print()
    if results.failed:
        print(paint(f"{results.failed} checks failed.", "red"), _REPORT)
        return 1
    print(paint("All is well.", "green"), "Next: sotto init trial, or the tour in docs/tour.ipynb.")
    return 0
