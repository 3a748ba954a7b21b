"""Network A over slow networks, beside the least that messages and bytes take there.

Every party and the provider is a process of its own, behind a relay (relay.py) that gives each of
them a line of the stated bandwidth in each direction, and every message half the round trip. Their
configuration states the network, so that each ReLU takes as many rounds as are the fastest there.

The floor of a call is its trips, messages that wait for one another and take half the round trip each,
plus the bytes that the last party receives (it hears from all others and from the provider) over the
bandwidth, plus the local session's time for the same call. Beside it stands the floor that rounds
give, half a round trip each: less than can be reached where a party waits between rounds, for a
correction, and more than needed where a round moves nobody on. What is received while a message is on
its way costs nothing, so a call can take less than the sum.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import page
import script
from machine import describe, facts, spread, table
from processes import PARTIES, Calls, counted, slowest
from relay import HOST, measured, relayed

import mpc
from mpc.launch import start

ROUND_TRIPS = (0.2e-3, 20e-3, 60e-3)
BANDWIDTHS = (1e9, 1e8)
ROWS = (1, 128)
MEMBERS = (*PARTIES, "provider")


def over(round_trip: float, bandwidth: float, repeats: int) -> list[dict[str, Any]]:
    """Measure the batches on one network."""
    sockets = {name: socket.create_server((HOST, 0), backlog=128) for name in MEMBERS}
    ports = {name: sock.getsockname()[1] for name, sock in sockets.items()}
    pairs = {
        (caller, called): ports[called]
        for caller in PARTIES
        for called in MEMBERS
        if called == "provider" or PARTIES.index(called) < PARTIES.index(caller)
    }
    with relayed(pairs, round_trip, bandwidth) as reached:
        calls = {
            name: Calls(
                ROWS,
                repeats,
                {ports[to]: port for (caller, to), port in reached.items() if caller == name},
                mpc.Network(round_trip, bandwidth / 1e6),
            )
            for name in MEMBERS
        }
        return slowest(start(calls.__getitem__, PARTIES, sockets=sockets))


def turn(round_trip: float, bandwidth: float, repeats: int) -> list[dict[str, Any]]:
    """Measure one network, with processes of its own, and a local session just before."""
    echo, rate = measured(round_trip, bandwidth)
    local = Calls(ROWS, repeats).local()
    return [
        {**line, "here": here["seconds"], "echo": echo, "rate": rate}
        for here, line in zip(local, over(round_trip, bandwidth, repeats), strict=True)
    ]


def run(turns: int, repeats: int) -> dict[str, Any]:
    """Measure every network."""
    rows = []
    for round_trip in ROUND_TRIPS:
        for bandwidth in BANDWIDTHS:
            taken_turns = [turn(round_trip, bandwidth, repeats) for _ in range(turns)]
            for lines in zip(*taken_turns, strict=True):
                echo = statistics.median(each.pop("echo") for each in lines)
                rate = statistics.median(each.pop("rate") for each in lines)
                compute = statistics.median(s for each in lines for s in each.pop("here"))
                line = {**lines[-1], "seconds": [s for each in lines for s in each["seconds"]]}
                transfer = 8 * line["wire_received"] / bandwidth
                of_trips, of_rounds = (
                    line[name] * echo / 2 + transfer + compute for name in ("trips", "rounds")
                )
                taken = statistics.median(line["seconds"])
                rows.append(
                    {
                        "round_trip": round_trip,
                        "bandwidth": bandwidth,
                        "measured_round_trip": echo,
                        "measured_bandwidth": rate,
                        **line,
                        "local": compute,
                        "trip_floor": of_trips,
                        "round_floor": of_rounds,
                        "ratio_to_trip_floor": taken / of_trips,
                        "ratio_to_round_floor": taken / of_rounds,
                    }
                )
    return {"turns": turns, "repeats": repeats, "rows": rows, "machine": facts()}


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Return the result as a table."""
    found = [
        [
            "round trip (measured), bandwidth, images",
            "ms a call",
            "rounds",
            "trips",
            "kB received",
            "local, ms",
            "floor by rounds",
            "taken",
            "floor by trips",
            "taken",
        ]
    ]
    for line in result["rows"]:
        network = (
            f"{line['round_trip'] * 1e3:g} ms ({line['measured_round_trip'] * 1e3:.2f}),"
            f" {line['bandwidth'] / 1e6:,.0f} Mbit/s, {line['rows']}"
        )
        found.append(
            [
                network,
                spread(line["seconds"], 1e3, 1),
                f"{line['rounds']:g}",
                f"{line['trips']:g}",
                f"{line['wire_received'] / 1e3:,.1f}",
                f"{line['local'] * 1e3:.1f}",
                f"{line['round_floor'] * 1e3:.1f} ms",
                f"{line['ratio_to_round_floor']:.2f} of it",
                f"{line['trip_floor'] * 1e3:.1f} ms",
                f"{line['ratio_to_trip_floor']:.2f} of it",
            ]
        )
    return found


def report(result: dict[str, Any]) -> str:
    """Return the result as text."""
    return f"{table(rows_of(result))}\n\nMachine: {describe(result['machine'])}"


def draw(result: dict[str, Any]) -> Any:
    """Draw the calls, and where both floors are."""
    lines = result["rows"]
    return page.beside(
        [
            f"{line['round_trip'] * 1e3:g} ms, {line['bandwidth'] / 1e6:,.0f} Mbit/s:"
            f" {counted(line['rows'])}"
            for line in lines
        ],
        [[1e3 * value for value in line["seconds"]] for line in lines],
        {
            "floor by rounds": [1e3 * line["round_floor"] for line in lines],
            "floor by trips": [1e3 * line["trip_floor"] for line in lines],
        },
        "milliseconds a call",
    )


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the result as a page."""
    assert __doc__ is not None
    parts = [
        *(page.text(paragraph) for paragraph in __doc__.split("\n\n")[1:]),
        page.figure(lambda: draw(result), "times of a call beside both floors"),
        page.table(rows_of(result)),
    ]
    page.write(path, "Network A over slow networks", parts, result["machine"])


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--turns", type=int, default=3, help="of each network (default: 3)")
    parser.add_argument(
        "--repeats", type=int, default=9, help="calls of each batch in a turn (default: 9)"
    )
    script.add_report(parser)
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    script.at_least_one(options, "turns", "repeats")
    result = run(options.turns, options.repeats)
    if options.report is not None:
        write_page(result, options.report)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
