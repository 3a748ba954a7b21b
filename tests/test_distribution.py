"""Sdist and wheel build, install and import, and the version has one place."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import sotto_mpc

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ring", "mpc", "nn")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "examples", "tests", ".ci", ".github")
MODULES = {"sotto_mpc.py", "sotto_mpc_command.py"}
FILES = (
    ".gitignore", ".pre-commit-config.yaml", "LICENSE", "MANIFEST.in", "mkdocs.yml", "pyproject.toml",
    "ruff.toml", "setup.cfg", *MODULES, *(path.name for path in ROOT.glob("*.md")),
)  # fmt: skip
RELEASING = (ROOT / "RELEASING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PARTS = ("Security fixes", "Added", "Changed")
# What pip needs not be asked for twice.
BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)
IMPORT_ALL = """
import importlib, pkgutil
for name in ("ring", "mpc", "nn"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(found.name)
        print(found.name)
"""


def files_in(folders):
    """Return the paths of a tree's files, but for what Python and Numba keep beside them."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.suffix.startswith(".nb")
    }


def run(*command, cwd=None):
    """Run a command, show what it says if it fails, and return what it printed."""
    # What is installed, and nothing beside it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Build the sdist of a copy of the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in files_in(FOLDERS) | set(FILES):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    run(sys.executable, "-c", BUILD, "build_sdist", folder, cwd=folder / "source")
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Build the wheel of the unpacked sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    run(sys.executable, "-c", BUILD, "build_wheel", folder, cwd=source)
    (path,) = folder.glob("*.whl")
    return path


def test_the_sdist_is_the_whole_source(sdist):
    with tarfile.open(sdist) as archive:
        there = {
            name.partition("/")[2] for name in archive.getnames() if "." in name or "/" in name
        }
    assert files_in(FOLDERS) | set(FILES) <= there
    assert not [name for name in there if "__pycache__" in name]


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(about))
    assert there == files_in(PACKAGES) | MODULES
    assert about["Name"] == "sotto-mpc"
    assert about["Version"] == sotto_mpc.__version__


def test_an_installed_wheel_imports_module_by_module_and_has_the_command(wheel, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
        "--no-deps", "--disable-pip-version-check", wheel,
    )  # fmt: skip
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # NumPy and the others are those of this environment; what the wheel has brought comes first.
    rest = [path for path in sys.path if path.endswith("-packages")]
    (packages / "rest.pth").write_text("\n".join(rest))
    imported = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    expected = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in files_in(PACKAGES)
        if name.endswith(".py")
    }
    assert set(imported) == expected - set(PACKAGES)
    where = run(python, "-c", "import ring, mpc, nn; print(ring, mpc, nn)", cwd=tmp_path)
    assert where.count(str(packages)) == 3
    told = run(tmp_path / "venv" / "bin" / "sotto", "--version", cwd=tmp_path)
    assert told == f"sotto {sotto_mpc.__version__}\n"


def test_the_version_is_written_once():
    version = re.compile(rf"(?<![\w.]){re.escape(sotto_mpc.__version__)}(?![\w.])")
    sources = files_in(PACKAGES) | {"setup.cfg", "pyproject.toml"} | MODULES
    found = [
        name
        for name in sources
        if name.endswith((".py", ".cfg", ".toml")) and version.search((ROOT / name).read_text())
    ]
    assert found == ["sotto_mpc.py"]


def release(folder, *commands):
    """Run the commands of RELEASING.md of which one of these words is part, in a folder."""
    (block,) = re.findall(r"^```console\n(.*?)^```", RELEASING, re.MULTILINE | re.DOTALL)
    chosen = [line[2:] for line in block.splitlines() if any(word in line for word in commands)]
    run("bash", "-ec", "\n".join(chosen), cwd=folder)
    return chosen


def test_the_release_checklist_sets_version_and_changelog(tmp_path):
    for name in ("sotto_mpc.py", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    before = CHANGELOG.index("## ")
    (version,) = re.findall(r"^## (\S+) \(not released yet\)$", CHANGELOG, re.MULTILINE)
    assert sotto_mpc.__version__ == f"{version}.dev0"
    assert f'__version__ = "{version}"' in RELEASING

    assert len(release(tmp_path, f'__version__ = "{version}"', f"## {version} (not")) == 2
    assert re.findall(
        "^__version__ = .*", (tmp_path / "sotto_mpc.py").read_text(), re.MULTILINE
    ) == [f'__version__ = "{version}"']
    released = (tmp_path / "CHANGELOG.md").read_text()
    assert re.match(rf"## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n", released[before:])

    assert len(release(tmp_path, ".dev0", "0,/^## /")) == 2
    following = re.search(
        '^__version__ = "(.*)[.]dev0"$', (tmp_path / "sotto_mpc.py").read_text(), re.M
    )
    expected = f"## {following[1]} (not released yet)\n\n{released[before:]}"
    assert (tmp_path / "CHANGELOG.md").read_text()[before:] == expected


def test_the_changelog_has_its_parts_and_security_first():
    for section in re.split("^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        titles = re.findall("^### (.*)$", section, re.MULTILINE)
        assert titles == [title for title in PARTS if title in titles]
        parts = dict(
            zip(titles, re.split("^### .*$", section, flags=re.MULTILINE)[1:], strict=True)
        )
        for title, text in parts.items():
            for line in re.findall("^- (.*)", text, re.MULTILINE):
                fix = line.startswith("Fixed security bug: ")
                assert fix == (title == "Security fixes"), line
