"""Run the same work under Sotto and its peers in turn, and compare.

    python benchmarks/peers/run.py --json peers.json

Each peer gets a virtual environment of its own, made on the first run from PyPI (CrypTen about
1 GB, SPU about 1 GB). Set ``PIP_EXTRA_INDEX_URL`` or ``PIP_FIND_LINKS`` to a place with CPU builds
of PyTorch to spare the far larger CUDA build that PyPI holds for Linux.

Then the libraries take turns, each turn in fresh processes: one checked call, one counted call,
and the timed ones. A peer that cannot be installed, fails or takes too long is named in the
table, and the run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import work
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS_PYTHON = "3.11"  # SPU 0.9.5 has no wheels for later ones

# What pip installs in one step, or, if that fails, instead.
Step = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Library:
    """A library that takes turns.

    Attributes
    ----------
    worker : str
        The script that does its work.
    venv : str
        Its virtual environment; "" for the interpreter that runs this.
    steps : sequence of Step
        How to install it.
    threads : int
        Threads of each of its processes; 0 leaves it to the library.
    about : str
        What the command line says of it.
    arguments : sequence of str
        More of the worker's command line.
    """

    worker: str
    venv: str = ""
    steps: Sequence[Step] = ()
    threads: int = 0
    about: str = ""
    arguments: Sequence[str] = ()


# CrypTen names a package that no longer exists among its dependencies, hence --no-deps.
CRYPTEN: Sequence[Step] = (
    (("torch==2.13.0+cpu",), ("torch==2.13.0",)),
    (("--no-deps", "crypten==0.4.1"),),
    (("numpy==2.4.6", "omegaconf==2.4.0", "onnx==1.23.2", "PyYAML==6.0.3"),),
)
SPU: Sequence[Step] = ((("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4"),),)
# For fitted models alone, see fitted_models.py.
CONCRETE: Sequence[Step] = (
    (("torch==2.3.1+cpu",), ("torch==2.3.1",)),
    (("concrete-ml==1.9.0",),),
)
CORES_A_PARTY = max(1, (os.cpu_count() or 1) // 2)

LIBRARIES = {
    "crypten": Library(
        "crypten_worker.py", "crypten", CRYPTEN, CORES_A_PARTY, "CrypTen, its cores shared evenly"
    ),
    "crypten-default": Library(
        "crypten_worker.py", "crypten", CRYPTEN, 0, "CrypTen, as many threads as PyTorch takes"
    ),
    "spu": Library("spu_worker.py", "spu", SPU, 0, "SecretFlow SPU, SEMI2K"),
    "spu-cheetah": Library(
        "spu_worker.py", "spu", SPU, 0, "SecretFlow SPU, CHEETAH: two parties alone", ("--cheetah",)
    ),
    # Beside it with --no-sotto: ratios are to one of these then.
    "sotto-alone": Library(
        "sotto_pair_worker.py", threads=CORES_A_PARTY, about="Sotto without a provider, over TLS"
    ),
    "sotto-processes": Library(
        "sotto_pair_worker.py", threads=CORES_A_PARTY, arguments=("--provider",),
        about="Sotto with a provider, over TLS",
    ),
    "sotto-malicious": Library(
        "sotto_pair_worker.py", threads=CORES_A_PARTY, arguments=("--malicious",),
        about="Sotto, three parties of which one may deviate, over TLS",
    ),
}  # fmt: skip
SOTTO = Library("sotto_worker.py")
# What others are compared with: the first of these that takes part.
OURS = ("sotto", "sotto-processes", "sotto-alone", "sotto-malicious")


class PeerError(Exception):
    """A peer cannot be installed or does not finish; says why in one line."""


def main() -> None:
    """Read the arguments, run, print the table, save the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "; ".join(f"{name}: {library.about}" for name, library in LIBRARIES.items())
    parser.add_argument(
        "--peers", nargs="*", choices=LIBRARIES, default=["crypten", "spu"], help=about
    )
    parser.add_argument(
        "--work",
        nargs="+",
        default=["inference"],
        metavar="ITEM",
        help=f"items ({', '.join(work.ITEMS)}) or groups of them ({', '.join(work.GROUPS)}); of functions"
        " with a number of elements: sqrt:1000",
    )
    parser.add_argument("--turns", type=int, default=3, help="turns of each library")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of an item in a turn")
    parser.add_argument("--timeout", type=float, default=900, help="seconds a turn may take")
    parser.add_argument("--venvs", type=Path, default=HERE / ".venvs", help="where peers live")
    parser.add_argument("--python", help=f"the peers' interpreter; default: a {PEERS_PYTHON}")
    parser.add_argument("--no-sotto", action="store_true", help="run the peers alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    args = parser.parse_args()
    for name in ("turns", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    try:
        work.choose(args.work)
    except ValueError as error:
        parser.error(f"--work: {error}")
    results = compare(args)
    print(report(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Install the peers, let all libraries take turns, and sum up."""
    begun = datetime.now(UTC)
    items = work.choose(args.work)
    names = list(dict.fromkeys(args.peers))
    libraries = {name: LIBRARIES[name] for name in names}
    if not args.no_sotto:
        libraries["sotto"] = SOTTO
    failures: dict[str, str] = {}
    interpreters: dict[str, str] = {}
    for name, library in libraries.items():
        try:
            interpreters[name] = installed(library, args.venvs, args.python)
        except PeerError as error:
            failures[name] = f"cannot be installed: {error}"
    lines: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in libraries}
    order = [name for _ in range(args.turns) for name in interpreters]
    with tqdm(order, unit="turn", disable=not sys.stderr.isatty()) as bar:
        for name in bar:
            bar.set_description(name)
            if name in failures:
                continue
            if bar.disable:
                say(f"turn {len(lines[name]) + 1} of {args.turns}: {name}")
            found, failure = turn(interpreters[name], libraries[name], items, args)
            lines[name].append(found)
            if failure:
                failures[name] = failure
                tqdm.write(f"{name}: {failure}", file=sys.stderr)
    return {
        "date": begun.isoformat(timespec="seconds"),
        "machine": machine(),
        "turns": args.turns,
        "repeats": args.repeats,
        "libraries": {name: about_library(lines[name], failures.get(name)) for name in libraries},
        "work": [summary(item, lines) for item in items],
    }


def installed(library: Library, venvs: Path, python: str | None) -> str:
    """Return the library's interpreter; make its virtual environment if it is not there."""
    if not library.venv:
        return sys.executable
    home = venvs / library.venv
    interpreter, marker = home / "bin" / "python", home / "installed.json"
    wanted = json.dumps(library.steps)
    if marker.exists() and interpreter.exists() and marker.read_text() == wanted:
        return str(interpreter)
    say(f"making the virtual environment of {library.venv}")
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    execute([python or peers_python(), "-m", "venv", str(home)])
    for step in library.steps:
        for at, packages in enumerate(step):
            say(f"  pip install {' '.join(packages)}")
            try:
                execute([str(interpreter), "-m", "pip", "install", "--quiet", *packages])
                break
            except PeerError:
                if at == len(step) - 1:
                    raise
    marker.write_text(wanted)
    return str(interpreter)


def peers_python() -> str:
    """Return an interpreter that the peers have wheels for, or else this one."""
    if platform.python_version().startswith(f"{PEERS_PYTHON}."):
        return sys.executable
    found = shutil.which(f"python{PEERS_PYTHON}")
    works = (
        found
        and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0
    )
    return found if found and works else sys.executable


def execute(command: list[str]) -> None:
    """Run a command; its first line of complaint becomes the error."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith("error")]
        raise PeerError((errors or said or [f"exit code {done.returncode}"])[0])


def turn(
    interpreter: str, library: Library, items: list[work.Item], args: argparse.Namespace
) -> tuple[list[dict[str, Any]], str | None]:
    """Let a library do the work once; return its lines and, if it failed, why."""
    command = [interpreter, str(HERE / library.worker), "--repeats", str(args.repeats)]
    command += ["--threads", str(library.threads), *library.arguments]
    command += ["--work", *(item.name for item in items)]
    environment = dict(os.environ)
    if not library.venv:
        paths = (str(ROOT), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    failure = None
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=args.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            failure = f"did not finish within {args.timeout:g} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if not failure and process.returncode:
            errors.seek(0)
            failure = reason(errors.read()) or f"ended with code {process.returncode}"
    lines = []
    for text in output.splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            failure = failure or f"printed something else than JSON: {text[:100]}"
    return lines, failure


def reason(errors: str) -> str:
    """Return the line that says best why a worker failed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("party ") and " failed in " in line]
    return (named or lines or [""])[-1][:300]


def summary(item: work.Item, lines: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Any]:
    """Sum up an item: each library's median and spread over all turns, and the ratios."""
    found: dict[str, dict[str, Any]] = {}
    for name, turns in lines.items():
        mine = [line for one in turns for line in one if line["item"] == item.name]
        good = [line for line in mine if "seconds" in line]
        if not good:
            if mine:
                found[name] = {key: mine[-1][key] for key in ("error", "lacks") if key in mine[-1]}
            continue
        seconds = [value for line in good for value in line["seconds"]]
        last = good[-1]
        found[name] = {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "seconds_by_turn": [line["seconds"] for line in good],
            "bytes_sent": last["bytes_sent"],
            "bytes_by_party": last["bytes_by_party"],
            "bytes_are": last["bytes_are"],
            "rounds": last["rounds"],
            "max_abs_error": max(line["max_abs_error"] for line in good),
        }
    us = next((name for name in OURS if name in lines), "")
    ours = found.get(us, {}).get("median")
    ratios = {
        name: figures["median"] / ours
        for name, figures in found.items()
        if ours and name != us and "median" in figures
    }
    # Of a function, what an error is measured by.
    largest = float(np.abs(work.expected(item)).max()) if item.kind == "function" else None
    return {
        "item": item.name,
        "title": item.title,
        "largest_result": largest,
        "included": item.included,
        "libraries": found,
        "ratio_to_sotto": ratios,
    }


def about_library(turns: list[list[dict[str, Any]]], failure: str | None) -> dict[str, Any]:
    """Return a library's versions, its setting and why it failed, if it did."""
    good = [line for one in turns for line in one if "seconds" in line]
    about: dict[str, Any] = {"failure": failure}
    if good:
        about |= {key: good[-1][key] for key in ("versions", "setting", "bytes_are")}
    return about


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        sotto = metadata.version("sotto-mpc")
    except metadata.PackageNotFoundError:
        sotto = "source tree"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "load_at_end": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sotto": sotto,
    }


def report(results: dict[str, Any]) -> str:
    """Return the tables and the notes below them."""
    names = list(results["libraries"])
    peers = [name for name in names if name != "sotto"]
    times = [["seconds: median [min-max]", *names]]
    costs = [["", *(f"{name} MB" for name in names), *(f"{name} rounds" for name in names)]]
    times[0] += [f"{name}/sotto" for name in peers if "sotto" in names]
    costs[0] += [f"{name} error" for name in names]
    for row in results["work"]:
        found, ratios = row["libraries"], row["ratio_to_sotto"]
        cells = [clock(found.get(name), results["libraries"][name]) for name in names]
        if "sotto" in names:
            cells += [f"{ratios[name]:.1f}x" if name in ratios else "-" for name in peers]
        times.append([row["title"], *cells])
        cells = [number(found, name, "bytes_sent", lambda b: f"{b / 1e6:.2f}") for name in names]
        cells += [number(found, name, "rounds", str) for name in names]
        cells += [number(found, name, "max_abs_error", "{:.1e}".format) for name in names]
        costs.append([row["title"], *cells])
    facts = results["machine"]
    text = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {results['date']};"
        f" {results['turns']} turns of {results['repeats']} calls or more",
        "",
        *aligned(times),
        "",
        "bytes sent by all parties in one call, rounds, largest absolute error against float64",
        *aligned(costs),
        "",
    ]
    for name, about in results["libraries"].items():
        if "setting" in about:
            versions = ", ".join(f"{key} {value}" for key, value in about["versions"].items())
            text.append(f"{name} ({versions}): {about['setting']}.")
            text.append(f"    Bytes: {about['bytes_are']}.")
        if about["failure"]:
            text.append(f"{name} failed: {about['failure']}")
        errors = [(r["title"], r["libraries"].get(name, {}).get("error")) for r in results["work"]]
        text += [f"{name} failed: {line}" for line in grouped(errors)]
        lacking = [(r["title"], r["libraries"].get(name, {}).get("lacks")) for r in results["work"]]
        text += [f"{name} lacks: {line}" for line in grouped(lacking)]
    text.append("Included in the time:")
    sentences = [(row["title"], row["included"]) for row in results["work"]]
    text += [f"    {line}." for line in grouped(sentences)]
    return "\n".join(text)


def grouped(said: list[tuple[str, str | None]]) -> list[str]:
    """Return a line for each sentence, led by all that it is said of."""
    titles: dict[str, list[str]] = {}
    for title, sentence in said:
        if sentence:
            titles.setdefault(sentence, []).append(title)
    return [f"{'; '.join(names)}: {sentence}" for sentence, names in titles.items()]


def clock(figures: dict[str, Any] | None, library: dict[str, Any]) -> str:
    """Return a cell with a median and its spread, or what became of it."""
    if figures and "lacks" in figures:
        return "lacks it"
    if not figures or "median" not in figures:
        return "failed" if figures or library["failure"] else "-"
    return "{} [{}-{}]".format(*(f"{figures[key]:.3g}" for key in ("median", "min", "max")))


def number(found: dict[str, Any], name: str, key: str, form: Any) -> str:
    """Return a cell with one figure, or a dash."""
    value = found.get(name, {}).get(key)
    return "-" if value is None else form(value)


def aligned(rows: list[list[str]]) -> list[str]:
    """Return rows as lines with aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
