"""Reports of networks.py: on a terminal, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import page
from machine import spread, table

import mpc
from mpc.core.cost import Spent

CONDITIONS = (
    "One image and a batch: session in one process, no network; sharing the images, the provider's\n"
    "work or what two parties make in its place, argmax and revealing the label included; weights\n"
    "opened and kernels compiled before.\n"
    "Published figures are from their authors' machines and networks."
)


def training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the training on shares as rows of a table."""
    what = f"an epoch on {training['rows']:,} images"
    found = [
        (
            f"{what}, start {run['seed']}: plain, encrypted",
            f"{run['plain_accuracy']:.2%}, {run['encrypted_accuracy']:.2%}",
        )
        for run in training["runs"]
    ]
    return [
        *found,
        (f"{what}, encrypted, s", spread([run["seconds"] for run in training["runs"]], 1)),
        (
            f"an epoch on {training['full_rows']:,} images, encrypted, extrapolated",
            f"{training['seconds_full_epoch_extrapolated']:.0f} s",
        ),
    ]


def summary(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one network's result as rows."""
    single, batch = result["single"], result["batch"]
    rows = [
        ("accuracy, plain", f"{result['plain_accuracy']:.2%}"),
        ("accuracy, encrypted", f"{result['encrypted_accuracy']:.2%}"),
        ("predictions that agree", f"{result['agreement']:.2%}"),
        ("plain training", f"{result['seconds_training']:.1f} s"),
        ("all test images, encrypted", f"{result['seconds_all']:.2f} s"),
        ("one image, ms, median [range]", spread(single["seconds_runs"], 1e3)),
        (f"{batch['rows']} images, ms, median [range]", spread(batch["seconds_runs"], 1e3, 0)),
        ("rounds", f"{single['rounds']:,}"),
        ("one image: bytes sent, all parties", f"{single['bytes_sent']:,}"),
        ("one image: bytes sent, busiest party", f"{single['bytes_sent_per_party']:,}"),
        ("one image: correction bytes", f"{single['correction_bytes']:,}"),
    ]
    if not result["provider"]:
        rows = [row for row in rows if "correction" not in row[0]]
    if result["memory"]:
        rows.append(
            (
                f"peak memory of {result['memory']['rows']} images",
                f"{result['memory']['peak_bytes'] / 1e6:,.0f} MB",
            )
        )
    if result["training"]:
        rows += training_rows(result["training"])
    return rows


def rows_by_layer(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cost of a single image, layer by layer."""
    layers = [("one image, by layer", "rounds", "bytes sent, all", "correction bytes", "ms")]
    layers += [
        (
            layer["layer"],
            f"{layer['rounds']}",
            f"{layer['bytes_sent']:,}",
            f"{layer['correction_bytes']:,}",
            f"{layer['seconds'] * 1e3:.2f}" if layer["seconds"] else "-",
        )
        for layer in result["single"]["layers"]
    ]
    return layers


def rows_beside_others(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return this run beside the published figures."""
    single = result["single"]
    others = [("published", "parties", "s", "MB", "conditions")]
    others.append(
        ("this run", "", f"{single['seconds']:.4f}", f"{single['bytes_sent'] / 1e6:.3f}", "")
    )
    others += [
        (f["system"], f["parties"], f"{f['seconds']:g}", f"{f['megabytes']:g}", f["conditions"])
        for f in result["published"]
    ]
    return others


def title(result: dict[str, Any]) -> str:
    """Return which network it is, in a line."""
    return (
        f"Network {result['network']}: {result['parameters']:,} parameters,"
        f" {result['images']:,} images"
    )


def report(result: dict[str, Any]) -> str:
    """Return one network's result as tables."""
    tables = [
        table(summary(result), header=False),
        "",
        table(rows_by_layer(result)),
        "",
        table(rows_beside_others(result)),
    ]
    return "\n".join([title(result), "", *tables, ""])


def draw_layers(result: dict[str, Any]) -> Any:
    """Draw the cost of a single image, layer by layer."""
    parts = {
        layer["layer"]: Spent(
            layer["rounds"], layer["bytes_sent"], layer["correction_bytes"], layer["seconds"]
        )
        for layer in result["single"]["layers"]
    }
    return mpc.Cost(sum(parts.values(), Spent()), {}, parts).plot(sent="sent by all parties")


def write_page(results: list[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """Write the results as a page."""
    parts = [page.text(CONDITIONS)]
    for result in results:
        parts += [
            page.heading(title(result)),
            page.table(summary(result), header=False),
            page.figure(lambda result=result: draw_layers(result), title(result)),
            page.table(rows_by_layer(result)),
            page.table(rows_beside_others(result)),
        ]
    page.write(path, "The papers' networks on shares", parts, machine)
