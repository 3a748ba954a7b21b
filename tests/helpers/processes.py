"""Finding processes that are left over, by a word in their environment, which children inherit.

And what this machine can do.
"""

import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process that runs."""

    pid: int
    parent: int
    command: str
    environment: str


def marked(mark):
    """Return all processes with a word in their environment, whoever has started them."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace")
            if mark not in environment:
                continue
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        # One that has ended and is not waited for has no command any more.
        if command and int(folder.name) != os.getpid():
            line = command.replace("\0", " ")[:300]
            found.append(Process(int(folder.name), parent, line, environment))
    return found


def stop(pid):
    """Stop a process; return once none of its threads runs.

    One of them hears of the signal first and stops the others, which go on until it has its turn.
    """
    tasks = Path(f"/proc/{pid}/task")
    while True:
        os.kill(pid, signal.SIGSTOP)
        states = [
            (each / "stat").read_text().rpartition(")")[2].split()[0] for each in tasks.iterdir()
        ]
        if set(states) == {"T"}:
            return
        time.sleep(0.005)


def gone(find, patience=20):
    """Wait until `find` finds nothing; return what it finds in the end."""
    end = time.monotonic() + patience
    while (left := find()) and time.monotonic() < end:
        time.sleep(0.1)
    return [f"{each.pid} (of {each.parent}): {each.command}" for each in left]


def in_child(function):
    """Fork; return what the child says, which is what the function returns or raises."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                said = f"returned {function()}"
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(there, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(there)
    said = b""
    while piece := os.read(here, 4096):
        said += piece
    os.close(here)
    os.waitpid(child, 0)
    return said.decode()


def has_ipv6():
    """Whether this machine can talk to itself by IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
