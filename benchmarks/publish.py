"""Write the figures of the README and of RESULTS.md from the files in benchmarks/results/.

With --run the benchmarks are run first, or those that --only names; the peers' virtual environments are
made on the first run. RESULTS.md says how long each took. Without --run, the files that are there are
used. A test checks that the texts say what the files hold.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import auditor
import conversions
import deep
import fitted_models
import functions
import kernels
import pretrained
import processes
import script
import serving
import sizing
import slow_networks
import stock
import training_seeds
import watched
import workers
from machine import describe, markdown
from networks_text import alone_text, networks_text, seconds, training_text

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULTS = HERE / "RESULTS.md"
SCALING = HERE.parent / "docs" / "scaling.md"
RUNNING = HERE.parent / "docs" / "running.md"
SECURITY = HERE.parent / "docs" / "security-models.md"
FILES = HERE / "results"


# What --run runs, in this order, and what each prints or writes as JSON.
BENCHMARKS = (
    "main",
    "kernels",
    "training",
    "training_seeds",
    "networks",
    "deep",
    "pretrained",
    "networks_alone",
    "main_alone",
    "conversions",
    "processes",
    "slow_networks",
    "workers",
    "sizing",
    "serving",
    "soak",
    "peers",
    "peers_deep",
    "functions",
    "fitted_models",
    "alone",
    "alone_training",
    "stock",
    "auditor",
    "auditor_malicious",
    "watched",
    "peers_malicious",
)


def command(name: str, data: str, venvs: str | None) -> list[str]:
    """Return the command line of a benchmark."""
    options = {
        "main": ["encrypted_mnist.py", "--data", data, "--repeats", "7", "--memory", "--json"],
        "kernels": ["kernels.py", "--json"],
        "training": ["train_mnist.py", "--data", data, "--json"],
        "training_seeds": ["training_seeds.py", "--data", data, "--rows", "12000", "--json"],
        "networks": [
            "networks.py", "--data", data, "--memory", "--train-encrypted", "6000", "--json"
        ],
        # CHEETAH takes half a minute for a step.
        "alone_training": [
            "peers/run.py", "--peers", "spu-cheetah", "sotto-alone", "--no-sotto", "--repeats", "1",
            "--work", "train_mse_128", "--json", str(FILES / "alone_training.json"),
            *(["--venvs", venvs] if venvs else []),
        ],
        "networks_alone": [
            "networks.py", "--no-provider", "--data", data, "--epochs", "2", "--train", "12000",
            "--images", "1000", "--repeats", "8", "--memory", "--json",
        ],
        "main_alone": ["encrypted_mnist.py", "--no-provider", "--repeats", "7", "--json"],
        "conversions": ["conversions.py", "--json"],
        "deep": ["deep.py", "--json"],
        "pretrained": ["pretrained.py", "--json"],
        "stock": ["stock.py", "--json"],
        "auditor": ["auditor.py", "--json"],
        "auditor_malicious": ["auditor.py", "--security", "malicious", "--chunks", "20", "--json"],
        "processes": ["processes.py", "--json"],
        "watched": ["watched.py", "--json"],
        "slow_networks": ["slow_networks.py", "--json"],
        "workers": ["workers.py", "--images", "10000", "--json"],
        "sizing": ["sizing.py", "--json"],
        "serving": ["serving.py", "--hostile", "all", "--json"],
        "soak": ["serving.py", "--no-load", "--soak", "1000000", "--json"],
        "peers": [
            "peers/run.py", "--peers", *PEERS, "--work", "inference", "train_step_128",
            "--json", str(FILES / "peers.json"), *(["--venvs", venvs] if venvs else []),
        ],
        "peers_deep": [
            "peers/run.py", "--peers", *PEERS, "--repeats", "2", "--work", "deep",
            "--json", str(FILES / "peers_deep.json"), *(["--venvs", venvs] if venvs else []),
        ],
        "peers_malicious": [
            "peers/run.py", "--peers", "sotto-processes", "sotto-malicious", "spu", "--no-sotto",
            "--turns", "2", "--work", *ALONE[:3], "--json", str(FILES / "peers_malicious.json"),
            *(["--venvs", venvs] if venvs else []),
        ],
        "functions": ["functions.py", "--turns", "2", "--json", *(["--venvs", venvs] if venvs else [])],
        "fitted_models": ["fitted_models.py", "--json", *(["--venvs", venvs] if venvs else [])],
        "alone": [
            "peers/run.py", "--peers", "spu-cheetah", "sotto-alone", "--no-sotto", "--repeats", "2",
            "--work", *ALONE, "--json", str(FILES / "alone.json"),
            *(["--venvs", venvs] if venvs else []),
        ],
    }  # fmt: skip
    script, *arguments = options[name]
    return [sys.executable, str(HERE / script), *arguments]


def run(names: Sequence[str], data: str, venvs: str | None) -> None:
    """Run benchmarks, and keep what they print and how long they took."""
    FILES.mkdir(exist_ok=True)
    for name in names:
        line = command(name, data, venvs)
        print(f"running {' '.join(line[1:])} ...", file=sys.stderr)
        begun = time.perf_counter()
        done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
        file = FILES / f"{name}.json"
        found = json.loads(file.read_text() if name in PEERS_RUN else done.stdout)
        found["seconds_in_all"] = round(time.perf_counter() - begun)
        file.write_text(json.dumps(found, indent=1) + "\n")


def read(name: str) -> dict[str, Any]:
    """Return a result file."""
    found: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text())
    return found


def sotto_in(peers: dict[str, Any]) -> str:
    """Return which of the libraries is Sotto."""
    return next(name for name in peers["libraries"] if name.startswith("sotto"))


def peer_rows(peers: dict[str, Any]) -> list[list[str]]:
    """Return the comparison as a table: medians, spreads and ratios."""
    us = sotto_in(peers)
    others = [name for name in peers["libraries"] if name != us]
    rows = [["work", "Sotto", *(TITLES.get(name, name) for name in others)]]
    for item in peers["work"]:
        row = [item["title"]]
        for name in (us, *others):
            figures = item["libraries"].get(name, {})
            if "median" not in figures:
                row.append("lacks it" if "lacks" in figures else "failed")
                continue
            low, high = seconds(figures["min"]), seconds(figures["max"])
            cell = f"{seconds(figures['median'])} [{low}-{high}]"
            if name != us:
                cell += f", {item['ratio_to_sotto'][name]:.1f}x"
            row.append(cell)
        rows.append(row)
    return rows


TITLES = {
    "crypten": "CrypTen 0.4.1, cores shared evenly",
    "crypten-default": "CrypTen 0.4.1",
    "spu": "SecretFlow SPU 0.9.5",
    "spu-cheetah": "SecretFlow SPU 0.9.5, CHEETAH",
    "sotto-malicious": "Sotto, one of three may deviate",
}
# Which of the benchmarks are peers/run.py, that writes its file itself.
PEERS_RUN = ("peers", "peers_deep", "peers_malicious", "alone", "alone_training")
PEERS = ("spu", "crypten-default", "crypten")
ALONE = ("network_a_1", "network_a_128", "network_a_1000", "matmul_1000x784x128", "relu_1m")


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
        *(
            [["correction bytes from the provider", f"{main['correction_bytes']:,}"]]
            if main.get("provider", "crypto")
            else []
        ),
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
            f"{alone_figures()}{malicious_figures()}Machine of the tables: {describe(main['machine'])}.",
        ]
    )


def alone_figures() -> str:
    """Return the README's sentence of two parties without a third, or nothing."""
    if not (FILES / "alone.json").exists():
        return ""
    alone = read("alone")
    found = []
    for item in alone["work"]:
        ours, theirs = (item["libraries"].get(name, {}) for name in ("sotto-alone", "spu-cheetah"))
        if "median" not in ours or "median" not in theirs:
            continue
        found.append(
            f"{item['title']} {seconds(ours['median'])} and {seconds(theirs['median'])}"
            f" ({item['ratio_to_sotto']['spu-cheetah']:.1f}x)"
        )
    return (
        "Two parties alone, with nobody to deal anything, Sotto's over TLS, and SPU's CHEETAH:"
        f" {'; '.join(found)} ([all figures](benchmarks/RESULTS.md#two-parties-alone);"
        f" {alone['machine']['cpu']}, {alone['machine']['cores']} cores, {alone['date'][:10]}). "
    )


def malicious_figures() -> str:
    """Return the README's sentence of three parties of which one may deviate, or nothing."""
    if not (FILES / "peers_malicious.json").exists():
        return ""
    measured = read("peers_malicious")
    found = [
        f"{item['title']} {seconds(item['libraries']['sotto-malicious']['median'])}"
        for item in measured["work"]
    ]
    return (
        "Three parties of which one may deviate, each in a process of its own over TLS:"
        f" {'; '.join(found)} ([all figures](benchmarks/RESULTS.md#one-party-may-deviate);"
        f" {measured['machine']['cpu']}, {measured['machine']['cores']} cores,"
        f" {measured['date'][:10]}). "
    )


def where_sotto_loses(peers: dict[str, Any]) -> list[str]:
    """Name every figure in which another library is better."""
    found = []
    us = sotto_in(peers)
    for item in peers["work"]:
        ours = item["libraries"].get(us, {})
        for name, theirs in item["libraries"].items():
            if name.startswith("sotto") or "median" not in theirs:
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


def title_of(library: str) -> str:
    """Return a library's name, of Sotto with what sets it apart."""
    title = TITLES.get(library, "Sotto")
    return title if library.startswith("sotto") else title.split(",")[0]


def beside(peers: dict[str, Any]) -> list[str]:
    """Return what a comparison with other libraries found."""
    names = [name for name in peers["libraries"] if name != "crypten-default"]
    costs = [
        ["work", *(title_of(name) for name in names)],
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
    included = {f"{i['title']}: {i['included']}": i["included"] for i in peers["work"]}
    if len(included) > 1 and len(set(included.values())) == 1:
        included = dict.fromkeys(included.values())
    settings = [
        f"- {TITLES.get(name, 'Sotto')}: {about['setting']}. Bytes: {about['bytes_are']}."
        if "setting" in about
        else f"- {TITLES.get(name, name)}: {about['failure']}"
        for name, about in peers["libraries"].items()
    ]
    return [
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
        *(f"- {text}." for text in included),
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
    ]


def duration_text(found: dict[str, dict[str, Any]]) -> str:
    """Return how long the benchmarks took, or a hint where a file does not say."""
    times = {name: one.get("seconds_in_all") for name, one in found.items()}
    known = {name: t for name, t in times.items() if t is not None}
    parts = ", ".join(f"{name} {t / 60:.1f}" for name, t in known.items())
    return (
        f"`publish.py --run` takes the sum of these minutes: {parts}."
        if len(known) == len(times)
        else f"Minutes that benchmarks took when they ran last: {parts or 'not known'}."
    )


def apart() -> list[str]:
    """Return what is measured with every party in a process of its own."""
    near, far = read("processes"), read("slow_networks")
    return [
        "## Parties as processes",
        "",
        "Network A; alice, bob and the provider each in a process of its own over TLS on the loopback,"
        " beside a local session, both on the same cores. A call shares the images, evaluates and"
        " reveals the scores to the last party; the provider's work is in it. Medians of"
        f" {near['turns']} turns of {near['repeats']} calls [least-most], of one image after"
        f" {processes.warm_up(1)} that are not timed.",
        "",
        markdown(processes.rows_of(near)),
        "",
        f"Machine: {describe(near['machine'])}.",
        "",
        "## Slow networks",
        "",
        "The same, over a relay that gives each process a line of the stated bandwidth in each direction"
        f" and each message half the round trip; {far['turns']} turns of each network, with processes"
        f" of their own, of {far['repeats']} calls; medians of all [least-most]. The"
        " floor is trips (messages that wait for one another, half a round trip each), plus the bytes"
        " that the last party receives (from the other and from the provider) over the bandwidth, plus"
        " the local session's time; beside it what rounds in place of trips give. What arrives while a"
        " message is on its way costs nothing, so a call can take less than the sum.",
        "",
        markdown(slow_networks.rows_of(far)),
        "",
        f"Machine: {describe(far['machine'])}.",
        "",
    ]


def results() -> str:
    """Return RESULTS.md."""
    # A benchmark that is new has no file before it is run.
    found = {name: read(name) for name in BENCHMARKS if (FILES / f"{name}.json").exists()}
    main, peers, speed = found["main"], found["peers"], found["kernels"]
    training, networks = found["training"], found["networks"]
    converted = found["conversions"]["models"]
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
    text = [
        "# Results",
        "",
        "Written by `benchmarks/publish.py`; do not edit. Times vary from run to run: compare within a"
        " table only. " + duration_text(found),
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
        *beside(peers),
        *(
            ["## Deep networks beside other libraries", "", *beside(found["peers_deep"])]
            if "peers_deep" in found
            else []
        ),
        *(
            [
                "## Functions beside other libraries",
                "",
                *functions.functions_text(found["functions"], beside(found["functions"])),
                "",
            ]
            if "functions" in found
            else []
        ),
        *(
            [
                "## Fitted models beside Concrete ML",
                "",
                *fitted_models.fitted_text(found["fitted_models"]),
                "",
            ]
            if "fitted_models" in found
            else []
        ),
        *(["## Two parties alone", "", *beside(found["alone"])] if "alone" in found else []),
        *alone_part(found),
        "## Training on shares",
        "",
        *training_text(training),
        "",
        "### Encrypted against plain",
        "",
        *training_seeds.seeds_text(found["training_seeds"]),
        "",
        "## The papers' networks",
        "",
        *networks_text(networks),
        "",
        *(["## Deep networks", "", *deep.deep_text(found["deep"]), ""] if "deep" in found else []),
        *(
            ["## Pre-trained files", "", *pretrained.pretrained_text(found["pretrained"]), ""]
            if "pretrained" in found
            else []
        ),
        *apart(),
        *(
            ["## An auditor", "", *auditor.auditor_text(found["auditor"]), ""]
            if "auditor" in found
            else []
        ),
        *(
            [
                "## An auditor of watched parties",
                "",
                *auditor.auditor_text(found["auditor_malicious"]),
                "",
            ]
            if "auditor_malicious" in found
            else []
        ),
        *watched_part(found),
        "## Workers",
        "",
        workers_text(found["workers"]),
        "",
        "## Memory of the services",
        "",
        sizing_text(found["sizing"]),
        "",
        *serving_part(found.get("serving"), found.get("soak")),
        "## Kernels",
        "",
        "```",
        kernels.report(speed),
        "```",
        "",
        "## Models of scikit-learn",
        "",
        "Converted, or Sotto's own (`Secure...`), and evaluated on shares: rows that get the same class as"
        " in the clear, or the largest error in standard deviations of the target. Where the audit refuses"
        " the default format, 16 bits behind the point and 15 before it, the one that it suggests is used.",
        "",
        markdown(conversions.rows(converted)),
        "",
        *[f"- {refusal}." for refusal in conversions.refusals(converted)],
        "",
        conversions.summary(converted),
        "",
    ]
    return "\n".join(text)


def watched_part(found: dict[str, Any]) -> list[str]:
    """Return the chapter on three parties of which one may deviate, if it has been measured."""
    text = ["## One party may deviate", ""]
    if "watched" in found:
        text += [*watched.watched_text(found["watched"]), ""]
    if "peers_malicious" in found:
        text += [
            "### Beside parties that do not deviate",
            "",
            "Two parties that have to follow the program, of Sotto and of another library, and three of"
            " which one may deviate.",
            "",
            *beside(found["peers_malicious"]),
        ]
    return text if len(text) > 2 else []


def alone_part(found: dict[str, Any]) -> list[str]:
    """Return what else is measured of two parties alone, where it has been."""
    text: list[str] = []
    if "alone_training" in found:
        text += ["### A training step of two parties alone", "", *beside(found["alone_training"])]
    if "stock" in found:
        text += ["### With a stock", "", *stock.stock_text(found["stock"]), ""]
    if "main_alone" in found:
        digits = found["main_alone"]
        text += [
            "### The 8x8 digits",
            "",
            "`encrypted_mnist.py --no-provider`: the main job on its default data, in one process:",
            "",
            markdown(main_rows(digits)),
            "",
            f"Machine: {describe(digits['machine'])}.",
            "",
        ]
    if "networks_alone" in found:
        text += [
            "### The papers' networks, alone", "", *alone_text(found["networks_alone"]), ""
        ]  # fmt: skip
    return text


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
            f"Machine: {describe(measured['machine'])}.",
        ]
    )


def serving_part(load: dict[str, Any] | None, soak: dict[str, Any] | None) -> list[str]:
    """Return the chapter on requests a second and memory, of what has been measured."""
    if not load and not soak:
        return []
    text = ["## Requests a second", ""]
    for measured in (load, soak):
        text += [*serving.serving_text(measured), ""] if measured else []
    return text


def sizing_text(measured: dict[str, Any]) -> str:
    """Return what memory the services take."""
    return "\n".join(
        [
            markdown(sizing.rows_of(measured)),
            "",
            f"Machine: {describe(measured['machine'])}.",
        ]
    )


def with_sizing(page: str) -> str:
    """Return the page on running services with its figures filled in."""
    return between(page, "figures: sizing", sizing_text(read("sizing")))


def with_security(page: str) -> str:
    """Return the page on security models with its figures filled in, where they have been measured."""
    texts = {
        "auditor": auditor.auditor_text,
        "auditor_malicious": auditor.auditor_text,
        "watched": watched.watched_text,
    }
    for name, text in texts.items():
        lines = [f"Not measured yet: `benchmarks/publish.py --run --only {name}`."]
        if (FILES / f"{name}.json").exists():
            lines = text(read(name))
        page = between(page, f"figures: {name}", "\n".join(lines))
    return page


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
    parser = script.parser(__doc__)
    parser.add_argument("--run", action="store_true", help="run the benchmarks first")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="with --run: which"
    )
    parser.add_argument(
        "--data", default="mnist", help="mnist, or a folder, as the main job takes it"
    )
    parser.add_argument(
        "--venvs", metavar="DIR", help="where the peers live, as peers/run.py takes it"
    )
    options = parser.parse_args()
    if options.run:
        run(options.only, options.data, options.venvs)
    README.write_text(with_figures(README.read_text()))
    RESULTS.write_text(results())
    SCALING.write_text(with_paper(SCALING.read_text()))
    RUNNING.write_text(with_sizing(RUNNING.read_text()))
    SECURITY.write_text(with_security(SECURITY.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
