"""Where compiled kernels go when no usual place can be written."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
# Runs a kernel, and says where its result is kept and how often it was compiled.
PROGRAM = """
import numpy as np
from numba.core import event
class Count(event.Listener):
    found = 0
    def on_start(self, event): self.found += 1
    def on_end(self, event): pass
count = Count()
event.register("numba:compile", count)
import ring
from ring.compile import cache_folder
x = np.arange(4, dtype=np.uint64).reshape(2, 2)
print(ring.matmul(x, x).tolist(), bool(count.found), cache_folder())
"""
ANSWER = "[[2, 3], [6, 11]]"


@pytest.fixture
def place():
    """A folder that others may enter, with a copy of the package that nobody may write to."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        for package in ("ring", "mpc", "nn"):
            no = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, place / "site" / package, ignore=no)
        shutil.copy(ROOT / "sotto_mpc.py", place / "site")
        (place / "tmp").mkdir()
        (place / "tmp").chmod(0o1777)
        yield place
        for each in (place / "site", *(place / "site").rglob("*")):
            each.chmod(0o755)


def give_up_roots_rights():
    """Let permissions hold for root too, from the next program on."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def run(place, *arguments, **environment):
    """Run Python where nothing can be written but temporary files, the home included."""
    for each in (*(place / "site").rglob("*"), place / "site"):
        each.chmod(each.stat().st_mode & ~0o222)
    done = subprocess.run(
        [sys.executable, "-B", *arguments], cwd=place / "site", capture_output=True, text=True,
        check=False, preexec_fn=give_up_roots_rights if IS_ROOT else None, env={
            "HOME": str(place / "site"), "PYTHONPATH": str(place / "site"),
            "TMPDIR": str(place / "tmp"), **environment,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def private_folder(place):
    return place / "tmp" / f"sotto-cache-{os.geteuid()}"


def test_without_a_home_it_goes_to_a_private_folder_and_is_said(place):
    folder = private_folder(place)
    out, told = run(place, "-m", "nn.command", "--version")
    assert out.startswith("sotto ")
    assert told.startswith(f"Sotto keeps compiled kernels in {folder}: neither the package's")
    assert "NUMBA_CACHE_DIR may name" in told and len(told.splitlines()) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    out, told = run(place, "-c", PROGRAM)
    assert out.startswith(f"{ANSWER} True {folder}{os.sep}") and not told
    # Another process compiles no more.
    out, told = run(place, "-c", PROGRAM)
    assert out.startswith(f"{ANSWER} False {folder}{os.sep}") and not told
    assert [path.name for path in (place / "tmp").iterdir()] == [folder.name]


def test_what_the_package_has_compiled_is_taken_along(place):
    subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=place / "site", check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(place / "site")},
    )  # fmt: skip
    out, _ = run(place, "-c", PROGRAM)
    assert out.startswith(f"{ANSWER} False {place / 'tmp'}")


def not_ones_own(folder):
    folder.mkdir(mode=0o700)
    if IS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
    else:
        folder.chmod(0o777)


def open_to_others(folder):
    folder.mkdir()
    folder.chmod(0o750)


def a_link(folder):
    own = folder.with_name("elsewhere")
    own.mkdir(mode=0o700)
    folder.symlink_to(own)


def where_others_may_rename(folder):
    folder.parent.chmod(0o777)


@pytest.mark.parametrize("trap", [not_ones_own, open_to_others, a_link, where_others_may_rename])
def test_what_somebody_else_could_have_made_is_not_run(place, trap):
    folder = private_folder(place)
    trap(folder)
    out, told = run(place, "-c", "from ring.compile import cache_folder; print(cache_folder())")
    assert out == "None"
    assert "compiles its kernels anew in each process" in told
    assert not folder.exists() or not list(folder.iterdir())


def test_without_any_place_it_runs(place):
    out, told = run(place, "-c", "import tempfile; tempfile.tempdir = '/nonexistent'" + PROGRAM)
    assert out == f"{ANSWER} True None"
    assert told.startswith("Sotto compiles its kernels anew in each process: neither")


def test_a_place_that_the_user_names_is_used_without_a_word(place):
    named = place / "tmp" / "mine"
    out, told = run(place, "-c", PROGRAM, NUMBA_CACHE_DIR=str(named))
    assert out.startswith(f"{ANSWER} True {named}") and not told


def test_a_full_disk_is_no_error(place):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    out, told = run(place, "-c", "import ring\n" + full + PROGRAM)
    assert out.startswith(f"{ANSWER} True {place / 'tmp'}")
    assert len(told.splitlines()) == 1
    out, _ = run(place, "-c", PROGRAM)
    assert out.startswith(ANSWER)
