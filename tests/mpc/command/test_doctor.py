"""``sotto doctor`` finds what is broken, and the command's first contact."""

import io
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mpc
from mpc import protocols
from mpc.command import doctor, self_test, terminal
from nn.command import main

ROOT = Path(__file__).resolve().parents[3]
NAMES = {found.name for found in pkgutil.iter_modules(protocols.__path__)}


def test_every_protocol_has_a_check():
    checked = {name for check in self_test.CHECKS for name in (check.name, *check.parts)}
    assert checked == NAMES


def test_all_is_well(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "launch", lambda *a, **k: {"alice": 12.0, "bob": 12.0})
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "FAILED" not in printed
    for word in ("numpy", "processor", "avx2" if "x86" in printed else "", "relu", "All is well"):
        assert word in printed
    # With a provider and without.
    alone = [check for check in self_test.CHECKS if not check.dealt]
    most = len(self_test.CHECKS) + len(alone) + 2
    assert len(re.findall(r"^  ok ", printed, re.MULTILINE)) >= most
    for check in self_test.CHECKS:
        assert printed.count(f"{check.name.replace('_', ' ')}: {check.what}") >= 2 - check.dealt, (
            check
        )
    assert "alice, bob, provider over TLS" in printed and "alice, bob alone over TLS" in printed


@pytest.mark.parametrize("provider", ["crypto", None])
def test_with_real_processes(provider):
    found = mpc.launch(doctor.three_times_four, provider=provider)
    assert found == {"alice": 12.0, "bob": 12.0}


def test_a_protocol_that_is_wrong_is_found(monkeypatch, capsys):
    broken = replace(self_test.CHECKS[5], run=lambda x, y: (x * y).reshape(-1, 1) + 0.5)
    monkeypatch.setattr(self_test, "CHECKS", (*self_test.CHECKS[:5], broken))
    monkeypatch.setattr(doctor, "launch", lambda *a, **k: {"alice": 12.0, "bob": 13.0})
    monkeypatch.setattr(doctor, "vector_products", lambda: {"_multiply_rows": 2})
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED  product: X @ Y.T" in printed
    assert re.search("differs by .*, at most 1.53e-05 is right", printed)
    assert "3 times 4 gave" in printed
    assert "not vectorised here" in printed
    assert "4 checks failed." in printed


@pytest.mark.parametrize("wrong", ["nan", "error"])
def test_no_result_is_no_success(wrong):
    def run(x, y):
        if wrong == "error":
            raise mpc.RangeError("too large")
        return np.full(self_test.SIZE, np.nan)

    check = replace(self_test.CHECKS[0], run=run)
    with mpc.Session() as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test, "CHECKS", (check,))
        (outcome,) = self_test.run_checks(session)
    assert outcome.problem


def test_every_protocol_is_right_without_a_provider():
    with mpc.Session(provider=None) as session:
        outcomes = list(self_test.run_checks(session))
    assert [(o.check.what, o.problem) for o in outcomes if o.problem] == []
    assert len(outcomes) == sum(not check.dealt for check in self_test.CHECKS) > 30


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("check", self_test.CHECKS, ids=lambda check: check.what)
def test_costs_from_a_plan_are_those_of_a_run(check, parties):
    with mpc.Session(("alice", "bob", "carol")[:parties]) as session:
        arguments = check.make(session)
        before = session.cost()
        check.run(*arguments)
        assert check.cost(session) == (session.cost() - before).total


# First contact.


def sotto(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "nn.command", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_help_says_where_to_start(capsys):
    assert main([]) == 2
    text = capsys.readouterr().err
    for name in ("doctor", "init", "check", "provider", "serve", "first steps"):
        assert name in text
    with pytest.raises(SystemExit):
        main(["init", "--help"])
    for line in (text + capsys.readouterr().out).splitlines():
        assert len(line) <= 90


def test_errors_show_no_traceback_unless_asked():
    done = sotto("check", "nothing.toml")
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("sotto: error: nothing.toml cannot be read")
    assert done.stderr.count("\n") == 1
    for arguments in (("--debug", "check", "nothing.toml"), ("check", "nothing.toml", "--debug")):
        assert "Traceback" in sotto(*arguments).stderr


def test_an_unforeseen_error_tells_its_kind_alone(monkeypatch, capsys):
    def fail():
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(doctor, "examine", fail)
    assert main(["doctor"]) == 70
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "--debug" in said
    assert "a secret" not in said
    with pytest.raises(ZeroDivisionError):
        main(["doctor", "--debug"])


def test_an_interrupt_is_quiet(monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", stop)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colour_on_a_terminal_alone(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.paint("ok", "green", Terminal()) == "\x1b[32mok\x1b[0m"
    assert terminal.paint("ok", "green", io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("ok", "green", Terminal()) == "ok"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.paint("ok", "green", Terminal()) == "ok"
