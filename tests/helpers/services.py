"""The provider and the parties as commands, to be asked, struck and started again."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import mpc
import nn
from mpc.parties import configuration
from tests.helpers.ports import free_ports
from tests.helpers.processes import gone, marked
from tests.helpers.programs import (
    branched_network,
    flower_network,
    network,
    picture_network,
    price_network,
)

ROOT = Path(__file__).parents[2]
PARTIES = ("alice", "bob")
# Begins the word in the environment of all processes of one set of services.
MARK = "SOTTO_TEST="
CLIENTS = ("carol", "dora", "erin")
# What is served, and how it was shared.
MODELS = {
    "network": (network(), {"low": 0, "high": 1, "scores": True}),
    "pictures": (picture_network(), {"low": 0, "high": 1}),
    "flowers": (flower_network(), {"scores": True}),
    "prices": (price_network(), {}),
    "two-prices": (price_network(2), {}),
    "branched": (branched_network(), {}),
}


class Services:
    """The provider, both parties, and clients, each a process."""

    def __init__(
        self,
        folder,
        models=MODELS,
        *,
        workers=2,
        answer=20,
        connect=60,
        idle=3600,
        more="",
        edit=None,
        parties=PARTIES,
        clients=CLIENTS,
        provider=True,
        security="semi-honest",
    ):
        self.folder, self.models, self.workers = folder, models, workers
        self.parties, self.security = parties, security
        self.path = configuration.write_example(
            folder / "trial", parties, clients, ports=free_ports(len(parties) + 1),
            timeouts=configuration.Timeouts(connect=connect, answer=answer, idle=idle),
            provider=provider, security=security,
        )  # fmt: skip
        with self.path.open("a") as file:
            file.write(more)
        if edit is not None:
            edit(self.path)
        for name in models:
            self.save(name, folder / name)
        members = (*(["provider"] if provider else []), *parties)
        self.logs = {name: folder / f"{name}.log" for name in members}
        self.printed = {name: folder / f"{name}.out" for name in self.logs}
        # By which processes are found that are left over, whoever has started them.
        self.mark = f"{MARK}{uuid.uuid4().hex}"
        self.processes = {}
        for name in self.logs:
            self.start(name)

    def save(self, name, folder):
        """Write all parties' files of a model, in one process; each serves its own."""
        model, options = self.models[name]
        with mpc.Session(self.parties, security=self.security) as session:
            nn.save_shares(model.share(session, owner="alice", **options), folder)

    def start(self, name, *, program=("-m", "nn.command"), verbose=True, stderr=None):
        """Start the provider or a party, again if it has run."""
        what = ["provider", str(self.path), "--workers", str(self.workers)]
        if name != "provider":
            what = ["serve", str(self.path), "--me", name]
            for model in self.models:
                what += ["--model", f"{model}={self.folder / model}"]
        what = [*program, *what, *(["--verbose"] if verbose else [])]
        with self.logs[name].open("w") as file, self.printed[name].open("w") as out:
            self.processes[name] = self._run(
                what, stdout=out, stderr=file if stderr is None else stderr
            )

    def ask(self, name, model="network"):
        """Start a client that asks without end; it prints "ready" with its first answer."""
        code = (
            f"from tests.helpers.programs import ask; ask({str(self.path)!r}, {model!r}, {name!r})"
        )
        client = self._run(["-c", code], stdout=subprocess.PIPE, text=True)
        self.processes[name] = client
        return client

    def load(self, name, clients=8, model="network"):
        """Start so many clients in one process, which ask until their input ends."""
        code = (
            "from tests.helpers.programs import load;"
            f" load({str(self.path)!r}, {model!r}, {name!r}, {clients})"
        )
        self.processes[name] = self._run(
            ["-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.processes[name].stdout.readline() == "ready\n"
        return self.processes[name]

    def lines(self, name, event):
        """Return the lines of one kind that a service has logged."""
        return [line for line in self.told(name).splitlines() if f"event={event} " in line]

    def wait_for(self, name, event, text="", count=1):
        """Return the lines of one kind with a text, once there are `count`.

        An answer goes out before its line is written.
        """
        end = time.monotonic() + 60
        while len(found := [x for x in self.lines(name, event) if text in x]) < count:
            assert time.monotonic() < end, (text, self.lines(name, event))
            time.sleep(0.01)
        return found

    def _run(self, arguments, **options):
        key, value = self.mark.split("=")
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, key: value}, **options
        )

    def told(self, name):
        """Return what a service has written since its start."""
        return self.logs[name].read_text()

    def kill(self, name):
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def stop(self):
        """Kill everything; return what is still there after a while, children too."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        return gone(lambda: marked(self.mark))
