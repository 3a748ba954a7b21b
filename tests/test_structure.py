"""What must hold of the source as a whole."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ring", "mpc", "nn")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path):
    """Return the top-level names of all imports of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path):
    above = {"ring": {"mpc", "nn"}, "mpc": {"nn"}, "nn": set()}[path.relative_to(ROOT).parts[0]]
    assert not imports(path) & (above | {"torch", "pickle", "random", "benchmarks", "tests"})


def modules(path):
    """Return the modules of mpc that a file imports: inside functions and for typing, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("mpc.")}


def reached(*starts):
    """Return all files of mpc that files import, directly or not, and the files themselves."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    found, left = set(), list(starts)
    while left:
        name = left.pop()
        if name in files and name not in found:
            found.add(name)
            left += modules(files[name])
    return found


def test_values_import_no_protocol_and_protocols_no_session():
    # The session's ledger counts the bytes of frames.
    below = reached("mpc.secret_value") - {"mpc.transport", "mpc.transport.frames"}
    assert {"mpc.masks", "mpc.plaintexts", "mpc.ranges"} < below
    assert not [name for name in below if name.startswith(("mpc.protocols", "mpc.transport"))]
    protocols = [f"mpc.protocols.{path.stem}" for path in FILES if path.parent.name == "protocols"]
    with_protocols = reached(*protocols, "mpc.numpy_functions")
    with_protocols -= {"mpc.transport", "mpc.transport.frames"}
    assert len(with_protocols) > len(protocols)
    assert not with_protocols & {"mpc.session", "mpc.shared_array", "mpc.provider"}
    assert not [name for name in with_protocols if name.startswith("mpc.transport")]


def test_public_faces_are_thin():
    for package in PACKAGES:
        assert len((ROOT / package / "__init__.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_parts_of_a_session_are_its_own(path):
    if path.name in ("session.py", "runtime.py"):
        return
    found = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value).split(".")[-1] in ("session", "_session", "planned", "nobody")
    ]
    assert not found


def test_no_masks_from_numpy():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "nn":
            assert "np.random" not in path.read_text(), path


# Keeps what Numba compiles from then on.
COUNT = """
from numba.core import event
class Count(event.Listener):
    found = []
    def on_start(self, event): self.found.append(str(event))
    def on_end(self, event): pass
event.register("numba:compile", Count())
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return done.stdout.strip()


def test_importing_brings_in_no_scikit_learn_and_compiles_nothing():
    code = """
import sys
import ring, mpc, nn
heavy = ("sklearn", "pandas", "torch", "tqdm", "joblib")
print([name for name in heavy if name in sys.modules], Count.found)
"""
    assert run(COUNT + code) == "[] []"


def test_a_session_starts_without_compiling():
    code = """
import mpc
with mpc.Session() as s:
    s.share([1], owner="alice")
print(Count.found)
"""
    assert run(COUNT + code) == "[]"


# Imports each module in a process of its own, with nothing of Sotto's imported before, not even by
# the packages that the module is in: an import that works only behind others fails.
ALONE = """
import importlib, os, sys, traceback
from pathlib import Path
from types import ModuleType

import numba, sklearn.base  # what takes long

root = Path(sys.argv[1])
names = {}

def wait():
    pid, status = os.wait()
    name = names.pop(pid)
    print("imported" if status == 0 else "failed", name, flush=True)

for name in sys.argv[2:]:
    while len(names) >= (os.cpu_count() or 1):
        wait()
    pid = os.fork()
    if pid:
        names[pid] = name
        continue
    status = 1
    try:
        folder, above = root, ""
        for part in name.split(".")[:-1]:
            folder, above = folder / part, f"{above}.{part}".strip(".")
            sys.modules[above] = package = ModuleType(above)
            package.__path__ = [str(folder)]
            package.__file__ = str(folder / "__init__.py")
        importlib.import_module(name)
        status = 0
    except BaseException:
        sys.stderr.write(f"{name}\\n{traceback.format_exc()}")
        sys.stderr.flush()
    finally:
        os._exit(status)
while names:
    wait()
"""


def test_every_module_imports_alone():
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT), *sorted(names)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    outcomes = dict(reversed(line.split()) for line in done.stdout.splitlines())
    assert not [name for name, what in outcomes.items() if what == "failed"], done.stderr
    assert outcomes.keys() == names, done.stderr
