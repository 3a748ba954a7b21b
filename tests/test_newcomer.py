"""The way of four organisations, each step from the page's text alone, each on a machine of its own.

A folder stands for each machine, with an address of its own where the system has more than one for
itself. What the page does not let travel is in one of them alone.
"""

import re
import shutil
import socket

import pytest

from tests.helpers.ports import free_port
from tests.test_docs import DOCS, commands

PAGE = DOCS / "deployment.md"
NAMES = ("alice", "bob", "provider", "carol")
# Whose machine a command is for: whose folder it names first.
WHOSE = re.compile(rf"\b({'|'.join(NAMES)})(?=/| --folder)")
# What the text around a command says, where the command does not.
SAID = {"between_organisations.py train": "alice"}
# What travels: by which command of the page or behind which one, and to whom.
MAIL = re.compile(r"(?:mkdir inbox && )?cp (\S+\.crt) inbox")
HANDED = {"between_organisations.py train": ("outline.npz", "alice", "bob")}


def addresses():
    """Return a host for each port of the page."""
    hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    try:
        for host in hosts:
            socket.create_server((host, 0)).close()
    except OSError:
        return ["127.0.0.1"] * 3
    return hosts


@pytest.fixture
def machines(tmp_path):
    """A folder for each machine, with what is public."""
    made = {name: tmp_path / "machines" / name for name in NAMES}
    for folder in made.values():
        folder.mkdir(parents=True)
        (folder / "examples").symlink_to(tmp_path / "examples")
    return made


def carry(machines, pattern):
    """Bring certificates, and nothing else, into everybody's inbox."""
    found = [path for folder in machines.values() for path in folder.glob(pattern)]
    assert found, pattern
    for folder in machines.values():
        (folder / "inbox").mkdir(exist_ok=True)
        for path in found:
            assert path.suffix == ".crt"
            shutil.copy(path, folder / "inbox")


def test_every_command_of_the_page_runs_where_it_belongs(machines, shell):
    hosts, owner, ran = addresses(), "", {name: [] for name in NAMES}
    port, printed = free_port(), {}
    for command, _ in commands(PAGE):
        if mail := MAIL.fullmatch(command):
            carry(machines, mail[1])
            continue
        said = next((who for words, who in SAID.items() if words in command), "")
        named = WHOSE.search(command)
        # What names nobody goes on where the last one was.
        owner = said or (named[1] if named else owner)
        others = {name for name in NAMES if re.search(rf"\b{name}/", command)} - {owner}
        assert not others, f"{command}: needs what is on the machine of {others}"
        here = command
        for k, host in enumerate(hosts):
            here = here.replace(f"127.0.0.1:{9001 + k}", f"{host}:{port + k}")
        done = shell(f"cd {machines[owner]} && {here}")
        ran[owner].append(command)
        if done is None:
            continue
        assert done.returncode == 0, f"at {owner}: {command}\n{done.stdout}{done.stderr}"
        printed[command] = done.stdout
        for words, (file, giver, taker) in HANDED.items():
            if words in command:
                shutil.copy(machines[giver] / file, machines[taker])
    assert all(ran.values())
    (asked,) = [text for command, text in printed.items() if " ask " in command]
    predicted, true = re.fullmatch(r"predicted: (\[.*\]) true: (\[.*\])\n", asked).groups()
    assert predicted == true
    keys_have_stayed(machines)


def keys_have_stayed(machines):
    """Each key is on the machine where it was made, readable by its owner alone, and nowhere else."""
    secrets = {path: path.read_bytes() for m in machines.values() for path in m.rglob("*.key")}
    assert {path.stem for path in secrets} == {*NAMES, "carol-2"}
    for path, secret in secrets.items():
        assert path.parent == machines[path.stem.removesuffix("-2")] / path.parent.name
        assert path.stat().st_mode & 0o777 == 0o600
        for folder in machines.values():
            for other in folder.rglob("*"):
                if other != path and other.is_file() and "examples" not in other.parts:
                    assert secret not in other.read_bytes(), f"{path} is in {other} too"
    for name in ("alice", "bob"):
        found = [path.name for folder in machines.values() for path in folder.rglob(f"{name}.npz")]
        assert found == [f"{name}.npz"]
        assert (machines[name] / name / "shares" / f"{name}.npz").exists()
    # Alice's weights stay hers.
    assert [path.parent.name for m in machines.values() for path in m.rglob("model.npz")] == [
        "alice"
    ]
