"""Packages of other projects that are named like Sotto's are noticed, wherever they are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sotto_mpc
from mpc.command import doctor
from nn.command import main

ROOT = Path(__file__).resolve().parent.parent
WAY_OUT = "virtual environment of its own"


def fake(folder, package):
    """Install a distribution of another project that has a package of this name."""
    about = folder / f"the_{package}-9.0.dist-info"
    (folder / package).mkdir(parents=True)
    about.mkdir()
    (folder / package / "__init__.py").write_text(f"print('code of {package} has run')\n")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: the-{package}\nVersion: 9.0\n")
    (about / "RECORD").write_text(f"{package}/__init__.py,,\n{about.name}/METADATA,,\n")
    return folder


def run(tmp_path, path, *arguments):
    """Run Python with these folders in its path, and return its status and all that it says."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("foreign", "imported"), [("ring", "mpc"), ("ring", "nn"), ("mpc", "nn"), ("mpc", "mpc, nn")]
)
def test_a_foreign_package_first_in_the_path_stops_what_needs_it(tmp_path, foreign, imported):
    other = fake(tmp_path / "other", foreign)
    status, told = run(tmp_path, [other, ROOT], "-c", f"import {imported}")
    assert status == 1
    last = told.splitlines()[-1]
    assert last.startswith("sotto_mpc.ForeignPackageError: ")
    assert f"{other / foreign / '__init__.py'} is not Sotto's package {foreign!r}" in last
    assert WAY_OUT in last
    # It was told apart by its place; only who imports it by hand has it run.
    assert ("has run" in told) == imported.startswith(foreign)


@pytest.mark.parametrize(("foreign", "imported"), [("mpc", "ring"), ("nn", "ring, mpc")])
def test_one_that_is_not_needed_is_a_warning_told_once(tmp_path, foreign, imported):
    other = fake(tmp_path / "other", foreign)
    status, told = run(
        tmp_path, [other, ROOT], "-W", "always", "-c", f"import {imported}; print('works')"
    )
    assert status == 0
    assert told.count("RuntimeWarning: ") == told.count("is not Sotto's package") == 1
    assert "works" in told
    assert "has run" not in told


@pytest.mark.parametrize("foreign", ["ring", "mpc", "nn"])
def test_one_that_comes_later_in_the_path_changes_nothing(tmp_path, foreign):
    other = fake(tmp_path / "other", foreign)
    assert run(tmp_path, [ROOT, other], "-W", "error", "-c", "import ring, mpc, nn") == (0, "")


@pytest.fixture
def installed(tmp_path):
    """Copy Sotto into a folder, as pip would install it."""
    folder = tmp_path / "site"
    for name in ("ring", "mpc", "nn"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sotto_mpc.py", "sotto_mpc_command.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_one_installed_over_sotto_is_noticed(tmp_path, installed):
    assert run(tmp_path, [installed], "-c", "import nn") == (0, "")
    (installed / "mpc" / "__init__.py").write_text("print('code of mpc has run')\n")
    status, told = run(tmp_path, [installed], "-c", "import nn")
    assert status == 1
    assert f"{installed / 'mpc' / '__init__.py'} is not Sotto's" in told.splitlines()[-1]
    assert "has run" not in told


def test_what_an_uninstalled_one_has_taken_along_is_noticed(tmp_path, installed):
    (installed / "ring" / "__init__.py").unlink()
    status, told = run(tmp_path, [installed], "-c", "import mpc")
    assert status == 1
    assert f"{installed / 'ring'} is what is left of a package 'ring'" in told
    assert "--force-reinstall" in told


# Finds Sotto as an editable installation does: after all folders in the path.
EDITABLE = """
import importlib.util, os, sys
class Finder:
    def find_spec(name, path=None, target=None):
        for end in ("/__init__.py", ".py"):
            if os.path.exists(file := os.path.join(sys.argv[1], name) + end):
                return importlib.util.spec_from_file_location(name, file)
sys.meta_path.append(Finder)
import nn
"""


def test_what_an_uninstalled_sotto_has_left_is_noticed(tmp_path, installed):
    left = tmp_path / "left"
    left.mkdir()
    assert run(tmp_path, [left], "-c", EDITABLE, installed) == (0, "")
    # Compiled kernels stay behind.
    (left / "ring" / "__pycache__").mkdir(parents=True)
    status, told = run(tmp_path, [left], "-c", EDITABLE, installed)
    assert status == 1
    last = told.splitlines()[-1]
    assert f"{left / 'ring'} is what is left of a package 'ring'" in last
    assert "Remove that folder" in last


@pytest.mark.parametrize("foreign", ["ring", "mpc", "nn"])
def test_the_command_says_so_without_a_traceback(tmp_path, foreign):
    other = fake(tmp_path / "other", foreign)
    status, told = run(tmp_path, [other, ROOT], "-m", "sotto_mpc_command", "doctor")
    assert status == 78
    assert told.startswith(f"sotto: {other / foreign / '__init__.py'} is not Sotto's package")
    assert WAY_OUT in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("first", [True, False])
def test_the_doctor_names_other_distributions_in_either_order(tmp_path, monkeypatch, capsys, first):
    monkeypatch.setattr(doctor, "launch", lambda *a, **k: {"alice": 12.0, "bob": 12.0})
    monkeypatch.setattr(doctor, "run_checks", lambda session: [])
    assert main(["doctor"]) == 0
    assert "and no other's" in capsys.readouterr().out
    fake(tmp_path, "mpc")
    fake(tmp_path, "ring")
    fake(tmp_path, "unrelated")
    monkeypatch.setattr(
        sys, "path", [str(tmp_path), *sys.path] if first else [*sys.path, str(tmp_path)]
    )
    assert main(["doctor"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "FAILED" in line)
    assert "'mpc' (of the-mpc), 'ring' (of the-ring)" in line
    assert "unrelated" not in line
    assert WAY_OUT in line


def test_all_are_sottos_here():
    assert [sotto_mpc.foreign(name) for name in ("ring", "mpc", "nn")] == ["", "", ""]
