"""The programs in examples/ run as their docstrings say, and README lists them."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import mpc

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))


def run(name, *arguments, cwd):
    """Run an example, and return what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments], cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported(name):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracies(printed):
    """Return the percentages that follow a name, as fractions."""
    return {
        name: float(value) / 100
        for name, value in re.findall(r"^(.+): +([\d.]+)%$", printed, re.MULTILINE)
    }


def test_evaluate(tmp_path):
    printed = run("evaluate.py", cwd=tmp_path)
    found = accuracies(printed)
    assert found["encrypted"] == found["plain"] > 0.9
    assert "correction bytes" in printed


def test_train(tmp_path):
    found = accuracies(run("train.py", cwd=tmp_path))
    assert found.keys() == {"trained on shares", "trained in the clear"}
    assert min(found.values()) > 0.9
    assert abs(found["trained on shares"] - found["trained in the clear"]) < 0.02


def test_two_owners(tmp_path):
    found = accuracies(run("two_owners.py", cwd=tmp_path))
    # Neither's rows alone would be enough for more than about half.
    assert found["alice"] == found["bob"] > 0.8


def test_private_statistics(tmp_path):
    """Over processes, beside SciPy on the rows of both."""
    printed = run("private_statistics.py", cwd=tmp_path)
    pattern = r"^(\w+): \[?([^\]\n]*)\]?$"
    found = {
        name: np.array(values.split(), float)
        for name, values in re.findall(pattern, printed, re.MULTILINE)
    }
    rows = np.concatenate([imported("private_statistics").patients(o) for o in ("alice", "bob")])
    age, dose, treated, change = rows[rows[:, 0] >= 50].T
    groups = change[treated == 1], change[treated == 0]
    design = np.column_stack([age, dose, np.ones(len(age))])
    exact = {
        "patients": [len(group) for group in groups],
        "mean": [group.mean() for group in groups],
        "deviation": [group.std(ddof=1) for group in groups],
        "t": [stats.ttest_ind(*groups, equal_var=False).statistic],
        "correlation": [stats.pearsonr(dose, change).statistic],
        "slopes": np.linalg.lstsq(design, change)[0][:2],
    }
    # As the program states, and half of the last place that it prints.
    error = {"patients": 0, "t": 5e-3}
    assert found.keys() == exact.keys()
    for name, values in exact.items():
        assert found[name] == pytest.approx(values, rel=0, abs=error.get(name, 1e-3) + 6e-4), name


@pytest.mark.parametrize("options", [[], ["--no-provider"]], ids=["provider", "alone"])
def test_serve(tmp_path, port, options):
    printed = run("serve.py", "trial", "--port", str(port), *options, cwd=tmp_path)
    predicted, true = re.findall(r"^(?:predicted|true): +(.*)$", printed, re.MULTILINE)
    assert len(true.split()) == 10
    assert sum(a == b for a, b in zip(predicted.split(), true.split(), strict=True)) >= 9
    assert {path.name for path in (tmp_path / "trial" / "shares").iterdir()} == {
        "alice.npz", "bob.npz",
    }  # fmt: skip


def test_own_protocol(tmp_path):
    cube, products = run("own_protocol.py", cwd=tmp_path).split("two products: ")
    numbers = [cube.removeprefix("cube: ").split("]")[0], products.split("]")[0]]
    assert [text.strip("[ ").split() for text in numbers] == [
        ["-343", "0", "1728", "1000000000"]
    ] * 2
    rounds = [int(re.search(r"^total +(\d+)", text, re.MULTILINE)[1]) for text in (cube, products)]
    assert rounds == [2, 3]  # one of them reveals


@pytest.fixture(scope="module")
def own_protocol():
    return imported("own_protocol")


@pytest.mark.parametrize("parties", [("alice", "bob"), ("a", "b", "c")])
@pytest.mark.parametrize("shape", [(), (0,), (3, 50)])
def test_own_protocol_is_exact_and_costs_what_it_says(own_protocol, parties, shape):
    numbers = np.random.default_rng(3).integers(-1000, 1001, shape)
    owner = parties[-1]

    def program(session):
        given = session.share(numbers, owner=owner, dtype=int, bound=1000)
        # As its owner has given it, and as a result that nobody knows.
        return own_protocol.cube(given), own_protocol.cube(given + given)

    with mpc.Session(parties) as session:
        plan = session.plan(program)
        first, second = program(session)
        spent = session.cost()
        assert (first.reveal() == numbers**3).all()
        assert (second.reveal() == (2 * numbers) ** 3).all()
    each = 8 * (len(parties) - 1) * numbers.size
    assert (spent.rounds, spent.bytes_sent_per_party) == (2, 2 * each)
    assert spent.correction_bytes == 2 * 16 * numbers.size
    assert (plan.cost.rounds, plan.cost.correction_bytes) == (spent.rounds, spent.correction_bytes)


def test_own_protocol_refuses_what_it_cannot_hold(own_protocol):
    with mpc.Session() as session:
        for x in ([1.5], [2**21]):
            shared = session.share(x, owner="alice", dtype=type(x[0]))
            with pytest.raises(
                mpc.RangeError, match="cube takes whole numbers of less than 21 bits"
            ):
                own_protocol.cube(shared)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_each_says_how_to_run_it_and_is_listed(path):
    described = ast.get_docstring(ast.parse(path.read_text()))
    assert re.search(rf"^python (examples/)?{path.name}", described, re.MULTILINE)
    assert f"[{path.name}](examples/{path.name})" in (ROOT / "README.md").read_text()
    assert f"`{path.name}`" in (ROOT / "docs" / "index.md").read_text()
    assert len(path.read_text().splitlines()) <= 70
