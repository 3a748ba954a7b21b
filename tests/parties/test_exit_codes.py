"""Exit codes, by which a supervisor knows whether to start a service again would help."""

import re
import socket

import pytest

from mpc.command import doctor
from mpc.core.errors import PeerTimeoutError
from mpc.parties import configuration
from nn.command import main
from tests.helpers.dates import redate
from tests.helpers.ports import free_ports
from tests.helpers.services import ROOT

UNITS = sorted((ROOT / "examples" / "deploy").glob("*.service"))


@pytest.fixture
def example(tmp_path):
    return configuration.write_example(tmp_path / "trial", ports=free_ports(3))


def redated(begin, end):
    def change(path):
        redate(path.parent / "provider.crt", path.parent / "provider.key", begin, end)

    return change


def wrong_key(path):
    path.write_text(path.read_text().replace('key = "provider.key"', 'key = "bob.key"'))


# What is wrong, the command's arguments behind the configuration's path, and the code.
CASES = {
    "no such option": (None, ["provider", "{}", "--nonsense"], 2),
    "an option's value": (None, ["provider", "{}", "--metrics", "x"], 78),
    "a model without a folder": (None, ["serve", "{}", "--me", "alice", "--model", "x"], 2),
    "no sessions": (None, ["provider", "{}", "--sessions", "0"], 2),
    "no memory": (None, ["auditor", "{}", "--memory-limit", "-1"], 2),
    "a folder that is a file": (None, ["init", "{}"], 78),
    "a folder for a key that is a file": (None, ["key", "dora", "--folder", "{}"], 78),
    "a link to itself": (
        lambda path: (path.parent / "link").symlink_to("link"),
        ["join", "{folder}/link", "{folder}/alice.crt"],
        78,
    ),
    "nobody": (None, ["serve", "{}", "--me", "eve", "--model", "x=y"], 2),
    "no shares": (None, ["serve", "{}", "--me", "alice", "--model", "x=y"], 78),
    "no file": (lambda path: path.unlink(), ["provider", "{}"], 78),
    "no certificate": (lambda path: (path.parent / "bob.crt").unlink(), ["provider", "{}"], 78),
    "another's key": (wrong_key, ["provider", "{}"], 78),
    "expired": (redated(-9, -1), ["provider", "{}"], 78),
    "not valid yet": (redated(1, 9), ["provider", "{}"], 75),
    "found by check": (wrong_key, ["check", "{}", "--me", "provider"], 78),
    "no one answers": (None, ["health", "{}", "--me", "alice", "--timeout", "0.1"], 1),
    "done": (None, ["check", "{}"], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_codes(example, case, capsys):
    change, arguments, code = CASES[case]
    if change is not None:
        change(example)
    try:
        ended = main([each.format(example, folder=example.parent) for each in arguments])
    except SystemExit as end:  # argparse's own
        ended = end.code
    assert ended == code, capsys.readouterr().err


def test_an_address_that_is_taken_may_be_free_later(example, capsys):
    with socket.create_server(configuration.load(example).provider.listen):
        assert main(["provider", str(example)]) == 75
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError(), 70),
        (OSError(28, "No space left"), 75),
        (OSError(13, "Permission denied", "alice.key"), 78),
        (OSError(30, "Read-only file system", "alice.key"), 78),
        (PeerTimeoutError("bob"), 75),
    ],
)
def test_codes_of_what_a_command_raises(monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    assert main(["doctor"]) == code


def test_the_page_and_the_units_know_these_codes():
    page = (ROOT / "docs" / "running.md").read_text()
    told = dict(re.findall(r"^\| (\d+) \| .* \| (yes|no|-) \|$", page, re.MULTILINE))
    assert {code for _, _, code in CASES.values()} <= {int(code) for code in told}
    never = " ".join(code for code, again in told.items() if again == "no")
    assert len(UNITS) == 4
    for unit in UNITS:
        assert f"RestartPreventExitStatus={never}" in unit.read_text().splitlines()
