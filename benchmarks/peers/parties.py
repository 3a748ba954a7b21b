"""Parties as processes on the loopback interface: start them, time them, count bytes.

A worker gives `run` a function that makes a `Party` of its library; the rest is the same for all
libraries that run as processes. One line of JSON for each item of work goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol

import numpy as np
import work
from secret_functions import LacksError

Call = Callable[[], Any]
Start = Callable[[int, list[str], int], "Party"]
_TCP_INFO_BYTES_SENT = 200  # offset of tcpi_bytes_sent in Linux's struct tcp_info


class Party(Protocol):
    """What a library's worker offers for one party.

    Attributes
    ----------
    setting : str
    versions : dict of str to str
    dealt : int
        What a provider sent to the parties in the call that `rounds` has run; 0 where there is none.
    """

    setting: str
    versions: dict[str, str]
    dealt: int

    def prepare(self, item: work.Item) -> Call:
        """Share what is not timed and return the call that is."""

    def parameters(self) -> np.ndarray:
        """Reveal all weights of the model just trained, in one vector."""

    def rounds(self, call: Call) -> int | None:
        """Run `call` once and return its rounds, as the library counts them."""

    def barrier(self) -> None:
        """Wait for the other parties."""

    def close(self) -> None:
        """Leave in good order."""


def arguments(description: str | None) -> argparse.Namespace:
    """Read the arguments all workers have."""
    return parser(description).parse_args()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return what reads the arguments all workers have."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--work", nargs="+", default=["all"], help="items or groups of work")
    found.add_argument("--repeats", type=int, default=5, help="timed calls of each item")
    found.add_argument(
        "--threads", type=int, default=0, help="threads of a process; 0: what the library takes"
    )
    return found


def run(start: Start, args: argparse.Namespace, count: int = 2) -> None:
    """Run the work with parties in processes of their own and print what they measured."""
    items = work.choose(args.work)
    addresses = free_addresses(count)
    context = multiprocessing.get_context("spawn")
    links: list[Connection] = []
    processes = []
    for rank in range(count):
        here, there = context.Pipe()
        target = (start, rank, addresses, items, args, there)
        processes.append(context.Process(target=_party, args=target, daemon=True))
        processes[-1].start()
        there.close()
        links.append(here)
    try:
        for item in items:
            parts = _from_all(links, item.name)
            if "lacks" in parts[0]:
                print(json.dumps({"item": item.name, "lacks": parts[0]["lacks"]}), flush=True)
                continue
            sent = [part["bytes_sent"] for part in parts]
            line = {
                "item": item.name,
                "seconds": np.max([part["seconds"] for part in parts], axis=0).tolist(),
                "bytes_by_party": sent,
                "bytes_sent": None if None in sent else sum(sent) + parts[0]["dealt"],
                "bytes_are": "what the kernel counts on"
                f" {'both' if count == 2 else 'all'} parties' connections"
                + (", and the provider's corrections" if parts[0]["dealt"] else ""),
                "rounds": max(part["rounds"] or 0 for part in parts) or None,
                "max_abs_error": max(part["max_abs_error"] for part in parts),
                "setting": f"{parts[0]['setting']}; {_threads(args.threads)}",
                "versions": parts[0]["versions"],
            }
            print(json.dumps(line), flush=True)
        for process in processes:
            process.join(30)
    except RuntimeError as error:
        sys.exit(str(error))
    finally:
        for process in processes:
            process.kill()


def bytes_sent() -> int | None:
    """Return the bytes this process has sent over TCP connections open now (Linux only)."""
    total = 0
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return None
    for descriptor in descriptors:
        with suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            if len(info) < _TCP_INFO_BYTES_SENT + 8:
                return None
            total += struct.unpack_from("=Q", info, _TCP_INFO_BYTES_SENT)[0]
    return total


def measure(party: Party, item: work.Item, repeats: int) -> dict[str, Any]:
    """Check one call, count in a second (both warm up), then time the others."""
    try:
        call = party.prepare(item)
    except LacksError as error:
        return {"lacks": str(error)}
    answer = call()
    if item.kind == "train":
        answer = party.parameters()
    error = float(np.abs(np.asarray(answer, dtype=np.float64) - work.expected(item)).max())
    rounds = party.rounds(call)
    party.barrier()
    before = bytes_sent()
    call()
    party.barrier()
    after = bytes_sent()
    seconds = []
    for _ in range(repeats * item.burst):
        party.barrier()
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return {
        "seconds": seconds,
        "bytes_sent": None if before is None or after is None else after - before,
        "dealt": party.dealt,
        "rounds": rounds,
        "max_abs_error": error,
        "setting": party.setting,
        "versions": party.versions,
    }


def _threads(count: int) -> str:
    """Say how many threads a process takes."""
    if not count:
        return "threads as the library takes them"
    return f"{count} thread{'s' * (count > 1)} a process"


def _party(
    start: Start,
    rank: int,
    addresses: list[str],
    items: list[work.Item],
    args: argparse.Namespace,
    link: Connection,
) -> None:
    """Be one party: the body of a process."""
    os.dup2(2, 1)  # what a library prints must not mix with the results
    try:
        party = start(rank, addresses, args.threads)
        for item in items:
            link.send(measure(party, item, args.repeats))
        party.close()
    except BaseException as error:
        link.send(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        raise


def _from_all(links: list[Connection], name: str) -> list[dict[str, Any]]:
    """Wait for all parties' figures; a party that fails ends the wait."""
    parts: dict[int, dict[str, Any]] = {}
    while len(parts) < len(links):
        ready = wait_for([link for rank, link in enumerate(links) if rank not in parts])
        for rank, link in enumerate(links):
            if link not in ready:
                continue
            part: dict[str, Any] | str
            try:
                part = link.recv()
            except EOFError:
                part = "its process ended"
            if isinstance(part, str):
                raise RuntimeError(f"party {rank} failed in {name}: {part}")
            parts[rank] = part
    return [parts[rank] for rank in range(len(links))]


def free_addresses(count: int) -> list[str]:
    """Return addresses on the loopback interface that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ["{}:{}".format(*one.getsockname()) for one in sockets]
    for one in sockets:
        one.close()
    return addresses
