"""The benchmarks as modules, and a shell for the commands that the pages show."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.helpers.ports import free_port

ROOT = Path(__file__).resolve().parent.parent

# No test asserts a time: a busy machine stops for longer than any example takes. Bodies that run over
# processes, and Hypothesis itself where CI is set, have profiles of their own, which say the same.
if not hypothesis.settings.default.derandomize:
    hypothesis.settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("any machine")


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark, which is no package; all of them are forgotten afterwards."""
    folder = ROOT / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in {path.stem for path in folder.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def peers(benchmark, monkeypatch):
    """Import a file of benchmarks/peers, and forget all of them afterwards."""
    folder = ROOT / "benchmarks" / "peers"
    monkeypatch.syspath_prepend(str(folder))
    yield benchmark
    for name in {path.stem for path in folder.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def port():
    """Return the first of three free ports in a row."""
    return free_port()


@pytest.fixture
def shell(tmp_path):
    """A folder with the examples, and with sotto and python in the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program, what in (("sotto", "-m nn.command"), ("python", "")):
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {what} "$@"\n')
        script.chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    background, gateway = [], free_port(61_000, 65_000)
    port = free_port()

    def run(command):
        environment = {
            **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = command.replace("init trial", f"init trial --port {port}")
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{gateway}")
        # What the pages say, at ports that are free.
        command = re.sub(
            r"127\.0\.0\.1:900([1-3])", lambda m: f"127.0.0.1:{port + int(m[1]) - 1}", command
        )
        how = {
            "shell": True, "cwd": tmp_path, "env": environment, "text": True,
            "start_new_session": True,
        }  # fmt: skip
        if command.endswith("&"):
            log = (tmp_path / f"{len(background)}.log").open("w")
            background.append((subprocess.Popen(command[:-1], stdout=log, stderr=log, **how), log))
            return None
        return subprocess.run(command, capture_output=True, check=False, timeout=120, **how)

    yield run
    for process, log in background:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
