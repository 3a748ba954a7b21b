"""The text of RESULTS.md about training on shares and about the papers' networks."""

from __future__ import annotations

import statistics
from typing import Any

from machine import describe, markdown


def seconds(value: float) -> str:
    """Return a time with three significant digits."""
    number, unit = (value, "s") if value >= 1 else (value * 1e3, "ms")
    return f"{f'{number:#.3g}'.rstrip('.')} {unit}"


def training_rows(training: dict[str, Any]) -> list[list[str]]:
    """Return encrypted training as a table, an epoch a row."""
    rows = [
        ["epoch", "plain", "encrypted", "loss", "seconds", "rounds", "sent a party", "correction"]
    ]
    rows += [
        [
            str(e["epoch"]),
            f"{e['plain_accuracy']:.2%}",
            f"{e['encrypted_accuracy']:.2%}",
            f"{e['encrypted_loss']:.4f}",
            f"{e['seconds']:.1f}",
            f"{e['rounds']:,}",
            f"{e['bytes_sent_per_party'] / 1e6:,.0f} MB",
            f"{e['correction_bytes'] / 1e6:,.0f} MB",
        ]
        for e in training["epochs"]
    ]
    return rows


def training_text(training: dict[str, Any]) -> list[str]:
    """Return the chapter on training."""
    epochs, parties = training["epochs"], training["parties"]
    steps = -(-training["images"] // training["batch_size"])
    apart = max(abs(e["plain_accuracy"] - e["encrypted_accuracy"]) for e in epochs)
    times = [e["seconds"] for e in epochs]
    return [
        f"`train_mnist.py`: {training['images']:,} images, network"
        f" {'-'.join(map(str, training['layers']))},"
        f" {steps} steps of {training['batch_size']} images an epoch, {training['loss'].replace('_', ' ')},"
        f" {training['optimizer']}, {training['schedule']} schedule, the same weights and order in"
        f" the clear and on shares; {' and '.join(parties)} and the provider in one process, its work"
        f" included. Accuracy on {training['test_images']:,} test images; it and the loss are all that is"
        " revealed.",
        "",
        markdown(training_rows(training)),
        "",
        f"Plain and encrypted are at most {100 * apart:.2f} percentage points apart. An epoch takes"
        f" {seconds(statistics.median(times))} [{seconds(min(times))}-{seconds(max(times))}], evaluation"
        f" not included, {1e3 * statistics.median(times) / steps:.1f} ms a step; peak memory"
        f" {training['peak_bytes'] / 1e6:,.0f} MB.",
        "",
        "Beside what papers report for network A, on their machines and networks:",
        "",
        markdown(
            [
                ["system", "epochs", "accuracy", "time", "conditions"],
                [
                    "Sotto",
                    str(len(epochs)),
                    f"{epochs[-1]['encrypted_accuracy']:.2%}",
                    f"{seconds(sum(times))}",
                    "one process, no network, this run",
                ],
                *([*figure.values()] for figure in training["published"]),
            ]
        ),
        "",
        f"Machine: {describe(training['machine'])}.",
    ]


def network_rows(networks: dict[str, Any]) -> list[list[str]]:
    """Return the papers' networks as a table."""
    rows = [
        [
            "network", "parameters", "plain", "encrypted", "agree", "one image", "128 images", "rounds",
            "sent online, all parties", "correction", "peak memory of 128",
        ]
    ]  # fmt: skip
    for n in networks["networks"]:
        single, batch = n["single"], n["batch"]
        cells = [
            f"{seconds(part['seconds'])} [{seconds(min(part['seconds_runs']))}-"
            f"{seconds(max(part['seconds_runs']))}]"
            for part in (single, batch)
        ]
        rows.append(
            [
                n["network"], f"{n['parameters']:,}", f"{n['plain_accuracy']:.2%}",
                f"{n['encrypted_accuracy']:.2%}", f"{n['agreement']:.2%}", *cells,
                str(single["rounds"]), f"{single['bytes_sent'] / 1e6:.4f} MB",
                f"{single['correction_bytes'] / 1e6:.4f} MB",
                f"{n['memory']['peak_bytes'] / 1e6:,.0f} MB",
            ]
        )  # fmt: skip
    return rows


def published_rows(networks: dict[str, Any]) -> list[list[str]]:
    """Return what papers report for one image, beside this machine's."""
    rows = [["network", "system", "parties", "seconds", "MB", "conditions", "source"]]
    for n in networks["networks"]:
        single = n["single"]
        rows.append(
            [
                n["network"], "Sotto", "2 and a dealer", f"{single['seconds']:.4f}",
                f"{single['bytes_sent'] / 1e6:.3f}", "one process, no network", "this run",
            ]
        )  # fmt: skip
        rows += [
            [
                f["network"], f["system"], f["parties"], f"{f['seconds']:g}", f"{f['megabytes']:g}",
                f["conditions"], f["source"],
            ]
            for f in n["published"]
        ]  # fmt: skip
    return rows


def followed_rows(networks: dict[str, Any]) -> list[list[str]]:
    """Return the training on shares of the networks with image layers."""
    rows = [
        [
            "network", "plain / encrypted, by random start", "furthest apart", "seconds",
            "sent a party", "a full epoch, extrapolated",
        ]
    ]  # fmt: skip
    for n in networks["networks"]:
        training = n["training"]
        if not training:
            continue
        runs = training["runs"]
        apart = max(abs(r["plain_accuracy"] - r["encrypted_accuracy"]) for r in runs)
        times = [r["seconds"] for r in runs]
        rows.append(
            [
                n["network"],
                "; ".join(
                    f"{r['plain_accuracy']:.2%} / {r['encrypted_accuracy']:.2%}" for r in runs
                ),
                f"{100 * apart:.2f} points",
                f"{statistics.median(times):.1f} [{min(times):.1f}-{max(times):.1f}]",
                f"{training['bytes_sent_per_party'] / 1e6:,.0f} MB",
                f"{training['seconds_full_epoch_extrapolated'] / 60:.1f} min",
            ]
        )
    return rows


def networks_text(networks: dict[str, Any]) -> list[str]:
    """Return the chapter on the papers' networks."""
    one = networks["networks"][0]
    text = [
        f"`networks.py`: trained in the clear, evaluated on shares on {one['images']:,} test images. Times:"
        " median [least-most], warm, one process, no network; sharing the images, the provider's work,"
        " argmax and revealing the label included; weights opened before. The peak is that of a whole"
        " process.",
        "",
        markdown(network_rows(networks)),
        "",
        "Beside what papers report for one image, on their machines and networks:",
        "",
        markdown(published_rows(networks)),
    ]
    followed = [n["training"] for n in networks["networks"] if n["training"]]
    if followed:
        t = followed[0]
        text += [
            "",
            f"Trained on shares for one epoch on {t['rows']:,} images, {t['batch_size']} a step, learning"
            f" rate {t['learning_rate']:g}, beside training in the clear from the same weights in the same"
            f" order; accuracy on {t['test_images']:,} test images. The seconds of an epoch on all"
            f" {t['full_rows']:,} images are extrapolated from it, in proportion to the rows:",
            "",
            markdown(followed_rows(networks)),
        ]
    return [*text, "", f"Machine: {describe(networks['machine'])}."]


def alone_rows(networks: dict[str, Any]) -> list[list[str]]:
    """Return the papers' networks without a provider as a table."""
    rows = [
        [
            "network", "plain", "encrypted", "predictions that agree", "one image", "128 images",
            "rounds", "sent for one image", "sent for 128", "peak memory of 128",
        ]
    ]  # fmt: skip
    for n in networks["networks"]:
        single, batch = n["single"], n["batch"]
        cells = [
            f"{seconds(part['seconds'])} [{seconds(min(part['seconds_runs']))}-"
            f"{seconds(max(part['seconds_runs']))}]"
            for part in (single, batch)
        ]
        rows.append(
            [
                n["network"], f"{n['plain_accuracy']:.2%}", f"{n['encrypted_accuracy']:.2%}",
                f"{round(n['agreement'] * n['images']):,} of {n['images']:,}", *cells,
                f"{single['rounds']:,}", f"{single['bytes_sent'] / 1e6:.2f} MB",
                f"{batch['bytes_sent'] / 1e6:,.0f} MB",
                f"{n['memory']['peak_bytes'] / 1e6:,.0f} MB",
            ]
        )  # fmt: skip
    return rows


def alone_text(networks: dict[str, Any]) -> list[str]:
    """Return the chapter on the papers' networks without a provider."""
    return [
        "`networks.py --no-provider`: two parties alone, who make everything for each other within the"
        " calls; bytes are those of both. Times: median [least-most], warm, one process that does the work"
        " of both, no network; sharing the images, argmax and revealing the label included. Weights that"
        " few rows are multiplied with are encrypted in the first call, which is not timed. The networks"
        " were trained for a short time only: what to compare is encrypted with plain.",
        "",
        markdown(alone_rows(networks)),
        "",
        f"Machine: {describe(networks['machine'])}.",
    ]
