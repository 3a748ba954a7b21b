"""Write the figures of the README and of RESULTS.md from the files in benchmarks/results/.

With --run the benchmarks are run first, which takes some ten minutes; without it, the files that
are there are used. A test checks that the texts say what the files hold.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kernels
import workers
from machine import describe, markdown

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULTS = HERE / "RESULTS.md"
SCALING = HERE.parent / "docs" / "scaling.md"
FILES = HERE / "results"


def run(data: str) -> None:
    """Run the benchmarks and keep what they print."""
    FILES.mkdir(exist_ok=True)
    for name, arguments in (
        ("main", ["encrypted_mnist.py", "--data", data, "--repeats", "7", "--memory", "--json"]),
        ("kernels", ["kernels.py", "--json"]),
        ("workers", ["workers.py", "--images", "10000", "--json"]),
    ):
        print(f"running {' '.join(arguments)} ...", file=sys.stderr)
        command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        (FILES / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print("running peers/run.py ...", file=sys.stderr)
    command = [sys.executable, str(HERE / "peers" / "run.py"), "--peers", *PEERS]
    command += ["--json", str(FILES / "peers.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read(name: str) -> dict[str, Any]:
    """Return a result file."""
    found: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text())
    return found


def seconds(value: float) -> str:
    """Return a time with three significant digits."""
    number, unit = (value, "s") if value >= 1 else (value * 1e3, "ms")
    return f"{f'{number:#.3g}'.rstrip('.')} {unit}"


def peer_rows(peers: dict[str, Any]) -> list[list[str]]:
    """Return the comparison as a table: medians, spreads and ratios."""
    others = [name for name in peers["libraries"] if name != "sotto"]
    rows = [["work", "Sotto", *(TITLES.get(name, name) for name in others)]]
    for item in peers["work"]:
        row = [item["title"]]
        for name in ("sotto", *others):
            figures = item["libraries"].get(name, {})
            if "median" not in figures:
                row.append("failed")
                continue
            low, high = seconds(figures["min"]), seconds(figures["max"])
            cell = f"{seconds(figures['median'])} [{low}-{high}]"
            if name != "sotto":
                cell += f", {item['ratio_to_sotto'][name]:.1f}x"
            row.append(cell)
        rows.append(row)
    return rows


TITLES = {
    "crypten": "CrypTen 0.4.1, cores shared evenly",
    "crypten-default": "CrypTen 0.4.1",
    "spu": "SecretFlow SPU 0.9.5",
}
PEERS = ("spu", "crypten-default", "crypten")


def main_rows(main: dict[str, Any]) -> list[list[str]]:
    """Return the main job as a table."""
    runs = main["seconds_encrypted_runs"]
    layers = "-".join(map(str, main["layers"]))
    spread = f"{seconds(main['seconds_encrypted'])} [{seconds(min(runs))}-{seconds(max(runs))}]"
    return [
        [f"{main['images']:,} images, network {layers}", ""],
        ["accuracy, plain", f"{main['plain_accuracy']:.2%}"],
        ["accuracy, encrypted", f"{main['encrypted_accuracy']:.2%}"],
        ["predictions that agree", f"{main['agreement']:.2%}"],
        [f"encrypted evaluation, median of {len(runs)} [least-most]", spread],
        ["images a second", f"{main['images_per_second']:,.0f}"],
        ["rounds", f"{main['rounds']:,}"],
        ["bytes sent by a party", f"{main['bytes_sent_per_party']:,}"],
        ["correction bytes from the provider", f"{main['correction_bytes']:,}"],
        ["peak memory", f"{main['peak_bytes'] / 1e6:,.0f} MB"],
    ]


def figures() -> str:
    """Return the README's figures."""
    main, peers = read("main"), read("peers")
    return "\n".join(
        [
            markdown(main_rows(main)),
            "",
            "Beside other libraries, same machine, same run, same work; median [least-most], and how many"
            " times Sotto's. All parties on two cores; sharing the input, all correlated randomness and"
            " revealing are included:",
            "",
            markdown(peer_rows(peers)),
            "",
            f"Machine: {describe(main['machine'])}.",
        ]
    )


def where_sotto_loses(peers: dict[str, Any]) -> list[str]:
    """Name every figure in which another library is better."""
    found = []
    for item in peers["work"]:
        ours = item["libraries"].get("sotto", {})
        for name, theirs in item["libraries"].items():
            if name == "sotto" or "median" not in theirs:
                continue
            for key, what in (
                ("median", "seconds"),
                ("bytes_sent", "bytes sent in all"),
                ("rounds", "rounds"),
                ("max_abs_error", "largest error"),
            ):
                mine, other = ours.get(key), theirs.get(key)
                if mine is not None and other is not None and other < mine:
                    found.append(
                        f"- {item['title']}, {what}: {TITLES.get(name, name)} {other:,.4g},"
                        f" Sotto {mine:,.4g}"
                    )
    return found or ["- In none of the figures above."]


def results() -> str:
    """Return RESULTS.md."""
    main, peers, speed = read("main"), read("peers"), read("kernels")
    memory = [["images at once", "before", "peak", "seconds"]]
    memory += [
        [
            f"{m['rows_at_once']:,}",
            f"{m['bytes_before'] / 1e6:,.0f} MB",
            f"{m['peak_bytes'] / 1e6:,.0f} MB",
            f"{m['seconds']:.3f}",
        ]
        for m in main["memory"]
    ]
    names = [name for name in peers["libraries"] if name != "crypten-default"]
    costs = [
        ["work", *(f"{TITLES.get(name, 'Sotto').split(',')[0]}" for name in names)],
    ]
    for item in peers["work"]:
        row = [item["title"]]
        for name in names:
            f = item["libraries"].get(name, {})
            row.append(
                f"{f['bytes_sent'] / 1e6:.2f} MB, {f['rounds']} rounds, {f['max_abs_error']:.0e}"
                if "median" in f
                else "-"
            )
        costs.append(row)
    included = dict.fromkeys(f"- {i['title']}: {i['included']}." for i in peers["work"])
    settings = [
        f"- {TITLES.get(name, 'Sotto')}: {about['setting']}. Bytes: {about['bytes_are']}."
        if "setting" in about
        else f"- {TITLES.get(name, name)}: {about['failure']}"
        for name, about in peers["libraries"].items()
    ]
    text = [
        "# Results",
        "",
        "Written by `benchmarks/publish.py`; do not edit. Times vary from run to run: compare within a"
        " table only.",
        "",
        "## The main job",
        "",
        markdown(main_rows(main)),
        "",
        f"First run, compiling or loading kernels from the cache: {seconds(main['seconds_first_run'])}."
        f" Sharing model, images and targets: {seconds(main['seconds_sharing'])}.",
        "",
        'Peak memory by batch size; "before" holds the test set and the compiled kernels:',
        "",
        markdown(memory),
        "",
        f"Machine: {describe(main['machine'])}.",
        "",
        "## Beside other libraries",
        "",
        f"{peers['turns']} turns of each library, {peers['repeats']} calls or more a turn; median"
        " [least-most], and how many times Sotto's.",
        "",
        markdown(peer_rows(peers)),
        "",
        "MB sent by all parties (and provider) together, rounds, largest error against float64:",
        "",
        markdown(costs),
        "",
        "Included:",
        "",
        *included,
        "",
        *settings,
        "",
        "### Where Sotto loses",
        "",
        *where_sotto_loses(peers),
        "",
        f"Machine: {peers['machine']['cpu']}, {peers['machine']['cores']} cores,"
        f" {peers['machine']['memory_gib']} GiB, {peers['date'][:10]}.",
        "",
        "## Workers",
        "",
        workers_text(read("workers")),
        "",
        "## Kernels",
        "",
        "```",
        kernels.report(speed),
        "```",
        "",
    ]
    return "\n".join(text)


def workers_text(measured: dict[str, Any]) -> str:
    """Return throughput against workers."""
    layers, repeats = (
        "-".join(map(str, measured["layers"])),
        len(measured["processes"][0]["seconds_runs"]),
    )
    return "\n".join(
        [
            f"{measured['images']:,} images, network {layers}; alice, bob and the provider on one machine"
            f" of {measured['machine']['cores']} cores; a thread for each worker; median of {repeats}."
            " TLS, corrections and sending shares to the workers are included, starting them is not."
            " On one machine more workers bring work (each gets the model and opens it) and no cores.",
            "",
            markdown(workers.rows_of(measured)),
            "",
            f"Machine: {describe(measured['machine'])}. Other work ran on it at the same time, hence the"
            " column for all.",
        ]
    )


def with_paper(page: str) -> str:
    """Return the page on scaling with its figures filled in."""
    measured = read("workers")
    page = between(page, "figures: workers", workers_text(measured))
    tables = [workers.inputs_of_paper(measured), workers.paper_rows(measured)]
    return between(page, "figures: paper", "\n\n".join(map(markdown, tables)))


def with_figures(readme: str) -> str:
    """Return the README with its figures and the example's output filled in."""
    readme = between(readme, "figures: main", figures())
    return between(readme, "output", f"```\n{read('main')['encrypted_accuracy']}\n```")


def between(text: str, name: str, content: str) -> str:
    """Replace what stands between the marker `name` and the next end."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: f"{match[1]}{content}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"the text needs one marker {name!r}, it has {count}")
    return found


def main() -> int:
    """Write the texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="run the benchmarks first")
    parser.add_argument("--data", default="mnist", help="for the main job, as it takes it")
    options = parser.parse_args()
    if options.run:
        run(options.data)
    README.write_text(with_figures(README.read_text()))
    RESULTS.write_text(results())
    SCALING.write_text(with_paper(SCALING.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
