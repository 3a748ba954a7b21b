"""The workflow runs what CONTRIBUTING says, may change nothing, and runs nobody's moving tags."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
JOBS = WORKFLOW["jobs"]


def settings():
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg")
    return read


def test_the_matrix_is_the_table_in_contributing():
    matrix = [
        (each["runner"], each["python"], each["command"])
        for each in JOBS["run"]["strategy"]["matrix"]["include"]
    ]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = re.findall(r"^\| `([\w.-]+)` \| ([\d.]+) \| `(\.ci/run.*?)` \|", text, re.MULTILINE)
    assert matrix == table
    assert JOBS["run"]["strategy"]["fail-fast"] is False
    assert JOBS["run"]["runs-on"] == "${{ matrix.runner }}"
    assert JOBS["run"]["steps"][-1] == {"run": "${{ matrix.command }}"}
    assert JOBS["run"]["steps"][1]["with"] == {"python-version": "${{ matrix.python }}"}
    # The oldest Python is the one that setup.cfg names.
    oldest = min((python for _, python, _ in matrix), key=lambda text: int(text.split(".")[1]))
    assert settings()["options"]["python_requires"] == f">={oldest}"
    for _, _, command in matrix:
        script, *arguments = command.split()
        assert os.access(ROOT / script, os.X_OK)
        assert arguments[:1] in ([], ["tests"])
        assert all((ROOT / folder).is_dir() for folder in arguments[1:])


def test_it_may_read_and_nothing_else():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not [name for name, job in JOBS.items() if "permissions" in job]
    assert "secrets." not in TEXT
    # YAML takes "on" for True.
    assert set(WORKFLOW[True]) == {"push", "pull_request", "schedule", "workflow_dispatch"}
    for job in JOBS.values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_actions_are_pinned_to_commits():
    used = re.findall(r"uses: *(.*)", TEXT)
    assert len(used) == sum("uses" in step for job in JOBS.values() for step in job["steps"])
    for action in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_jobs_end_and_newer_pushes_replace_older():
    assert all(job["timeout-minutes"] <= 60 for job in JOBS.values())
    assert WORKFLOW["concurrency"]["group"] == "${{ github.workflow }}-${{ github.ref }}"
    # What is on main is tested to the end.
    assert (
        WORKFLOW["concurrency"]["cancel-in-progress"]
        == "${{ github.event_name == 'pull_request' }}"
    )


def test_the_oldest_are_those_of_setup_cfg():
    job = JOBS["oldest"]
    assert job["steps"][1]["with"] == {"python-version": "3.11"}
    assert [step["run"].split()[0] for step in job["steps"][2:]] == [
        ".ci/oldest", 'PIP_CONSTRAINT="$RUNNER_TEMP/oldest.txt"',
    ]  # fmt: skip
    printed = subprocess.run(
        [sys.executable, ROOT / ".ci" / "oldest"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    needed = settings()["options"]["install_requires"].split("\n")
    expected = [f"{line.replace('>=', '==')}.*" for line in needed if line]
    assert printed[: len(expected)] == expected
    assert any(line.startswith("onnx == ") for line in printed)
    assert not [line for line in printed if line.startswith(("pytest", "ruff", "mkdocs"))]


def test_the_script_refuses_what_it_does_not_know():
    done = subprocess.run(
        [ROOT / ".ci" / "run", "test"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert ".ci/run tests" in done.stderr
