"""examples/deploy: what its files say runs, as plain processes with the same arguments."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

import nn
from mpc.parties import configuration
from nn.command import main
from tests.helpers.ports import free_port
from tests.helpers.processes import gone, marked
from tests.helpers.services import MARK, ROOT

DEPLOY = ROOT / "examples" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
UNITS = {path.stem: path.read_text() for path in DEPLOY.glob("*.service")}
# In a network namespace of its own a service takes the port it likes; here all are on one machine.
HTTP = 61_000


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The folders that the compose file mounts, with addresses on this machine."""
    folder = tmp_path_factory.mktemp("deploy") / "trial"
    prepare(folder, free_port())
    return folder


def prepare(*arguments):
    spec = importlib.util.spec_from_file_location("trial", DEPLOY / "trial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


def local(arguments, name, trial, port):
    """Return a container's arguments with the places that they have here."""
    (volume,) = COMPOSE[name]["volumes"]
    host, inside, mode = volume.rsplit(":", 2)
    assert host == "${SOTTO_TRIAL:-../../trial}/" + name and mode == "ro"
    found = [each.replace(inside, str(trial / name)) for each in arguments]
    return [re.sub(r"^0\.0\.0\.0:\d+$", f"127.0.0.1:{port}", each) for each in found]


@pytest.fixture(scope="module")
def running(trial):
    """All services of the compose file as processes: by name, and where each talks HTTP."""
    key, value = MARK.rstrip("="), uuid.uuid4().hex
    first = free_port(HTTP, HTTP + 2000)
    ports = {name: first + k for k, name in enumerate(COMPOSE)}
    processes = {}
    for name, service in COMPOSE.items():
        with (trial / f"{name}.log").open("w") as log:
            arguments = local(service["command"], name, trial, ports[name])
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "nn.command", *arguments], cwd=ROOT, stdout=log, stderr=log,
                env={key: value, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
    yield processes, ports
    for process in processes.values():
        process.kill()
        process.wait()
    assert not gone(lambda: marked(f"{key}={value}"))


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None, b""


def test_the_services_of_the_compose_file_answer(running):
    _, ports = running
    deadline = time.monotonic() + 120
    while get(ports["carol"], "/v1/health/ready")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.3)
    _, X, _, y = nn.load_digits_8x8()
    body = json.dumps({"rows": X.tolist()}).encode()
    url = f"http://127.0.0.1:{ports['carol']}/v1/models/digits/predict"
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        labels = json.loads(answer.read())["result"]
    assert (np.array(labels) == y).mean() > 0.9
    for name in ("provider", "alice", "bob"):
        assert b"sotto_ready 1.0" in get(ports[name], "/metrics")[1]


def test_the_health_checks_of_the_compose_file_pass(running, trial, capsys):
    for name in ("provider", "alice", "bob"):
        kind, program, *arguments = COMPOSE[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "sotto")
        assert main(local(arguments, name, trial, 0)) == 0, capsys.readouterr().out


def test_each_folder_has_one_key_and_no_other_party_s_shares(trial):
    for name in COMPOSE:
        assert [path.name for path in (trial / name).glob("*.key")] == [f"{name}.key"]
        shares = [path.name for path in (trial / name / "shares").glob("*")]
        assert shares == ([f"{name}.npz"] if name in ("alice", "bob") else [])


def test_without_a_port_services_find_each_other_by_name(tmp_path):
    prepare(tmp_path / "trial")
    text = (tmp_path / "trial" / "bob" / "parties.toml").read_text()
    found = re.findall(r'address = "(\w+):\d+"', text)
    assert sorted(found) == ["alice", "bob", "provider"] and set(found) <= set(COMPOSE)


@pytest.mark.parametrize("port", [[], ["9301"]])
def test_a_trial_without_a_provider(tmp_path, port, capsys):
    prepare(tmp_path / "trial", *port, "--no-provider")
    names = {path.name for path in (tmp_path / "trial").iterdir()}
    assert names == set(COMPOSE) - {"provider"}
    for name in names:
        path = tmp_path / "trial" / name / "parties.toml"
        assert configuration.load(path).provider is None
        assert not path.with_name("provider.crt").exists()
    assert len(re.findall(r'address = "127.0.0.1:930[12]"', path.read_text())) == 2 * bool(port)
    # What the compose file runs of it waits for nothing else.
    assert not [name for name in names if "depends_on" in COMPOSE[name]]


def command_of(unit):
    """Return the arguments behind the program of a unit."""
    (line,) = re.findall(r"^ExecStart=(.+)$", UNITS[unit], re.MULTILINE)
    program, *arguments = shlex.split(line)
    assert program == "/opt/sotto/bin/sotto"
    return arguments


@pytest.mark.parametrize(
    ("unit", "service"),
    [("sotto-provider", "provider"), ("sotto-party", "alice"), ("sotto-gateway", "carol")],
)
def test_units_run_what_the_compose_file_runs_but_on_the_loopback(unit, service):
    # Which the tests above have started.
    arguments = [each.replace("127.0.0.1:", "0.0.0.0:") for each in command_of(unit)]
    assert arguments == COMPOSE[service]["command"]


def test_the_auditor_runs_like_the_provider():
    provider, auditor = command_of("sotto-provider"), command_of("sotto-auditor")
    assert (provider.pop(0), auditor.pop(0)) == ("provider", "auditor")
    assert auditor == provider
    same = [set(UNITS[unit].splitlines()) for unit in ("sotto-provider", "sotto-auditor")]
    assert all(line.startswith(("#", "ExecStart=", "Description=")) for line in same[0] ^ same[1])


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_hardened(unit):
    lines = UNITS[unit].splitlines()
    for line in (
        "User=sotto", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict",
        "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "LimitCORE=0",
        "MemorySwapMax=0", "UMask=0077", "SystemCallFilter=@system-service", "Restart=always",
    ):  # fmt: skip
        assert line in lines
    assert ("ExecReload=/bin/kill -HUP $MAINPID" in lines) == (unit != "sotto-gateway")
    assert not [line for line in lines if line.startswith("MemoryDenyWriteExecute")]
    # What is written: kernels, and nothing else.
    assert (
        "Environment=NUMBA_CACHE_DIR=/var/cache/sotto" in lines and "CacheDirectory=sotto" in lines
    )


@pytest.mark.parametrize("name", COMPOSE)
def test_containers_are_closed(name):
    service = COMPOSE[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ulimits"]["core"] == 0
    assert service["user"] == "${SOTTO_UID:-10001}"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_has_what_is_needed_and_runs_as_nobody():
    steps = [
        line.split(maxsplit=1) for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line and not line.startswith("#")
    ]  # fmt: skip
    copied = [word for step, rest in steps if step == "COPY" for word in rest.split()[:-1]]
    modules = {"sotto_mpc.py", "sotto_mpc_command.py", "ring", "mpc", "nn"}
    assert {"setup.cfg", "pyproject.toml", *modules} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
    order = [step for step, _ in steps]
    # Kernels are compiled by root, before the user who can write nothing.
    assert order.index("USER") > steps.index(["RUN", "sotto doctor"])
    assert dict(steps)["USER"] == "10001" and dict(steps)["ENTRYPOINT"] == '["sotto"]'
    extras = re.search(r'"/src\[(.+)\]"', (DEPLOY / "Dockerfile").read_text())[1]
    assert set(extras.split(",")) == {"gateway", "metrics"}
    assert (
        Path(DEPLOY / "compose.yaml").read_text().count("dockerfile: examples/deploy/Dockerfile")
        == 1
    )
