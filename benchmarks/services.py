"""The provider, alice and bob as processes of this machine, and their memory and processor time."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import mpc
import nn
from mpc.parties import configuration
from mpc.parties.health import ask
from mpc.transport.certificates import make_certificate

PARTIES = ("alice", "bob")
NAMES = ("provider", *PARTIES)


def network(layers: Sequence[int]) -> nn.MLP:
    """Return a network whose weights do not matter."""
    rng = np.random.default_rng(0)
    shapes = [s for n, m in itertools.pairwise(layers) for s in ((n, m), (m,))]
    return nn.MLP.from_parameters([rng.normal(0, 0.05, shape) for shape in shapes])


def processor_seconds(pid: int) -> float:
    """Return the processor's seconds that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    # Behind the name, which may hold anything: user and system time.
    fields = stat.rpartition(")")[2].split()[11:13]
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


def layers_of(layers: Sequence[int], number: int, different: bool) -> tuple[int, ...]:
    """Return the layers of one of several models: all alike, or each of a width of its own."""
    return tuple(n + number * (different and 0 < k < len(layers) - 1) for k, n in enumerate(layers))


class Services:
    """The services as processes, with so many models.

    Parameters
    ----------
    folder : Path
    layers : sequence of int
    models : int
        They are named model-0, model-1, ...
    clients : sequence of str
    expired : sequence of str
        Those of the clients whose certificates have expired.
    different : bool
        Whether the models have different architectures.
    """

    def __init__(
        self,
        folder: Path,
        layers: Sequence[int],
        models: int,
        clients: Sequence[str],
        expired: Sequence[str] = (),
        different: bool = False,
    ) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
        ports = [sock.getsockname()[1] for sock in sockets]
        for sock in sockets:
            sock.close()
        self.folder = folder
        self.path = configuration.write_example(folder / "trial", PARTIES, clients, ports=ports)
        for name in expired:
            files = [self.path.with_name(f"{name}.{end}") for end in ("crt", "key")]
            for file in files:
                file.unlink()
            make_certificate(name, *files, days=-1)
        served = []
        with mpc.Session(PARTIES) as session:
            for k in range(models):
                plain = network(layers_of(layers, k, different))
                nn.save_shares(plain.share(session, owner="alice", low=0, high=1), folder / f"{k}")
                served += ["--model", f"model-{k}={folder / str(k)}"]
        commands = [["provider", str(self.path)]]
        commands += [["serve", str(self.path), "--me", name, *served] for name in PARTIES]
        self._processes = {}
        for name, command in zip(NAMES, commands, strict=True):
            with (folder / f"{name}.log").open("w") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "nn.command", *command],
                    stdout=subprocess.DEVNULL, stderr=log,
                )  # fmt: skip

    def wait(self) -> None:
        """Wait until all are ready."""
        read = configuration.load(self.path)
        deadline = time.monotonic() + 600
        while not all(each.ready for each in ask(read, "alice")):
            if time.monotonic() > deadline or any(p.poll() for p in self._processes.values()):
                raise SystemExit("the services do not become ready")
            time.sleep(0.2)

    def _status(self, name: str, key: str) -> int:
        for line in Path(f"/proc/{self._processes[name].pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
        raise ValueError(f"the system does not tell {key}")

    def resident(self) -> dict[str, int]:
        """Return the bytes that each has in memory, once they change no more."""
        last: dict[str, int] = {}
        while True:
            found = self.memory()
            if found == last:
                return found
            last = found
            time.sleep(0.5)

    def cpu(self) -> dict[str, float]:
        """Return the processor's seconds that each has used."""
        return {name: processor_seconds(self._processes[name].pid) for name in NAMES}

    def memory(self) -> dict[str, int]:
        """Return the bytes that each has in memory now."""
        return {name: self._status(name, "VmRSS") for name in NAMES}

    def served(self, client: str) -> int:
        """Return how many requests have been answered."""
        told = ask(configuration.load(self.path), client, of=PARTIES[0])[0].told
        return int(told.get("served", 0))

    def forget_peaks(self) -> None:
        """Let the peaks begin anew."""
        for process in self._processes.values():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peaks(self) -> dict[str, int]:
        """Return the most that each has had in memory since."""
        return {name: self._status(name, "VmHWM") for name in NAMES}

    def stop(self) -> None:
        """End all."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(
    layers: Sequence[int],
    models: int,
    clients: Sequence[str],
    expired: Sequence[str] = (),
    different: bool = False,
) -> Iterator[Services]:
    """Run services until they are not needed any more."""
    with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
        services = Services(Path(folder), layers, models, clients, expired, different)
        try:
            services.wait()
            yield services
        finally:
            services.stop()
