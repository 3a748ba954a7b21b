"""What must hold of the source as a whole."""

import ast
import itertools
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ring", "mpc", "nn")
FILES = sorted(
    [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    + list(ROOT.glob("sotto_mpc*.py"))
)


# The rooms, from the lowest up. A file imports from its own room or from one before it, and nothing
# else: what is imported inside a function or for a type checker counts, too.
ROOMS = (
    "sotto_mpc", "ring", "ring.__init__",
    "mpc.core", "mpc.transport", "mpc.two_party", "mpc.protocols", "mpc.array", "mpc.parties",
    "mpc.provider", "mpc", "mpc.workers", "mpc.command", "mpc.__init__",
    "nn.core", "nn.layers", "nn.losses", "nn.fixed_point", "nn.training", "nn.shared", "nn.models",
    "nn.convert", "nn.data", "nn.serving", "nn.gateway", "nn.networks", "nn", "nn.__init__",
    "sotto_mpc_command",
)  # fmt: skip
# Who talks to other processes: services, and what a model's rows are spread by.
TALK = ("mpc.transport", "mpc.parties")


def name_of(path):
    """Return a file's name as it is imported; a package's public face is its __init__."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


# Imported by themselves at every run.
MODULES_ALONE = 60

MODULES = {name_of(path): path for path in FILES}


def room_of(name):
    package, _, last = name.rpartition(".")
    return name if last == "__init__" and package in PACKAGES else package or name


def parse_imports(path):
    """Return what a file imports of Sotto, as files, and the top-level names of everything else."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name their package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            # The longest part that is a file or a package; what is left is an attribute of it.
            found = name
            while found and not {found, f"{found}.__init__"} & MODULES.keys():
                found = found.rpartition(".")[0]
            if found:
                inside.add(found if found in MODULES else f"{found}.__init__")
            else:
                outside.add(name.split(".")[0])
    return inside, outside


IMPORTS = {name: parse_imports(path) for name, path in MODULES.items()}


def reached(*starts):
    """Return all files that files import, directly or not, and the files themselves."""
    found, left = set(), list(starts)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += IMPORTS[name][0]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_from_its_own_room_or_an_earlier_one(name):
    inside, outside = IMPORTS[name]
    order = {room: k for k, room in enumerate(ROOMS)}
    own = order[room_of(name)]
    assert not [other for other in inside if order[room_of(other)] > own]
    assert not outside & {"torch", "pickle", "random", "benchmarks", "tests", "examples"}


@pytest.mark.parametrize("name", MODULES)
def test_no_circles_of_files(name):
    assert name not in reached(*IMPORTS[name][0] - {name})
    assert name not in IMPORTS[name][0]


def test_contributing_lists_the_rooms_in_their_order():
    """Rooms of the packages as in ROOMS, then every folder of tests."""
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    begin = lines.index("| room | what is in it |") + 2
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[begin:]))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    listed = [name for first, _ in cells for name in re.findall(r"`([^`]+)`", first)]
    rooms = [name.removesuffix(".py").replace("/", ".") for name in listed]
    assert rooms[: len(ROOMS)] == list(ROOMS)
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    folders = {name for name in folders if not name.startswith((".", "__"))}
    assert sorted(rooms[len(ROOMS) :]) == sorted(["tests", *(f"tests.{name}" for name in folders)])
    assert all(len(row) == 2 and row[1] for row in cells)


def test_every_room_has_something_in_it():
    assert {room_of(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("nn.")])
def test_only_services_touch_transport_and_parties(name):
    if room_of(name) not in ("nn.serving", "nn.gateway") and name != "nn.command":
        assert not [other for other in IMPORTS[name][0] if other.startswith(TALK)]


def test_values_import_no_protocol_and_protocols_no_session():
    below = reached("mpc.core.secret_value")
    assert {"mpc.core.known", "mpc.core.ranges"} < below
    assert not [name for name in below if name.startswith(("mpc.protocols", "mpc.transport"))]
    protocols = [name for name in MODULES if room_of(name) == "mpc.protocols"]
    below = reached(*protocols)
    assert len(below) > len(protocols)
    assert not below & {"mpc.session", "mpc.array.shared_array", "mpc.provider.dealer"}
    assert not [name for name in below if name.startswith("mpc.transport")]


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


# Prints the files of Sotto with a function that runs in one prediction, and in one training of a step.
# What is done in the first call alone, such as compiling, is left out.
WALK = """
import sys
from pathlib import Path
import numpy as np
import mpc, nn

def visited(function):
    function()
    seen = set()
    sys.setprofile(lambda frame, event, argument: seen.add(frame.f_code.co_filename))
    function()
    sys.setprofile(None)
    files = [Path(name) for name in seen if name.endswith(".py")]
    own = [f.relative_to(Path.cwd()) for f in files if f.is_relative_to(Path.cwd())]
    return sorted(str(f) for f in own if f.parts[0] in ("ring", "mpc", "nn"))  # no environment in here

X, y = np.random.default_rng(0).random((16, 12)), np.arange(16) % 10
model = nn.MLP((12, 8, 8, 10), random_state=0).fit(X, y, epochs=1)
with mpc.Session() as s:
    secret = model.share(s, owner="alice")
    row = secret.share_rows(X[:1], owner="bob")
    print(*visited(lambda: secret(row).argmax(axis=1).reveal()))
with mpc.Session() as s:
    xs, ys = s.share(X, owner="alice"), s.share(nn.one_hot(y), owner="bob")
    print(*visited(lambda: model.fit(xs, ys, epochs=1, batch_size=16)))
"""


def test_a_reader_follows_a_prediction_and_a_training_through_few_files():
    """Who reads along a call opens so many files; a new one on the way has to replace another."""
    prediction, training = (line.split() for line in run(WALK).splitlines())
    rooms = {"mpc/session.py", "mpc/protocols/relu.py", "nn/layers/relu.py", "ring/matmul.py"}
    assert rooms < {*prediction}
    assert rooms | {"nn/losses/cross_entropy.py", "nn/training/optimizers.py"} < {*training}
    assert len(prediction) <= 38, prediction
    assert len(training) <= 57, training


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
    """Some others at every run; all of them with SOTTO_EVERY_MODULE."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
    }
    if not os.environ.get("SOTTO_EVERY_MODULE"):
        names = set(random.SystemRandom().sample(sorted(names), MODULES_ALONE))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT), *sorted(names)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    outcomes = dict(reversed(line.split()) for line in done.stdout.splitlines())
    assert not [name for name, what in outcomes.items() if what == "failed"], done.stderr
    assert outcomes.keys() == names, done.stderr
