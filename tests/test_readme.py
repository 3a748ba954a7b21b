"""The README's example runs and prints what the README says; its figures come from the files."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nn

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MNIST = ROOT.parent / "shared" / "mnist"


def section(name):
    """Return the code block behind a marker."""
    text = README.read_text()
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```\n<!-- end -->", text, re.DOTALL)
    assert found, f"README.md has no {name}"
    return found[1]


def load(name):
    """Import a benchmark script, which is no package."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def test_example_with_digits(capsys):
    code = section("example")
    small = code.replace("load_mnist", "load_digits_8x8").replace("784, 128", "64, 64")
    assert small.count("digits") == 1
    assert small.count("64, 64") == 1
    names = {}
    exec(small, names)
    printed = float(capsys.readouterr().out)
    plain = names["model"].score(names["X_test"], names["y_test"])
    assert printed == plain
    assert printed > 0.9


def test_example_with_mnist(capsys, monkeypatch):
    if not MNIST.is_dir():
        pytest.skip("needs the four MNIST files in ../shared/mnist")
    data = nn.load_mnist(MNIST)
    monkeypatch.setattr(nn, "load_mnist", lambda: data)
    names = {}
    exec(section("example"), names)
    printed = float(capsys.readouterr().out)
    assert printed == pytest.approx(float(section("output")), abs=0.004)
    assert printed >= 0.975
    # Within 0.1 percentage points of plain, on all 10,000 images.
    assert abs(printed - names["model"].score(data[1], data[3])) <= 0.001


def test_figures_are_those_of_the_result_files():
    publish = load("publish")
    text = README.read_text()
    assert publish.with_figures(text) == text
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == publish.results()
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert publish.with_paper(text) == text


def test_commands_make_their_own_environments():
    for name in ("main command", "test command"):
        command = section(name).strip()
        assert "\n" not in command
        folder = re.match(r"python3 -m venv (\.venv\S*) && ", command)[1]
        assert command.count(f"{folder}/bin/") == 2


def test_fixed_names_are_there():
    import mpc
    import ring

    for module, names in (
        (ring, ("matmul", "encode", "decode")),
        (mpc, ("Session", "SharedArray", "split", "join")),
        (nn, ("MLP", "load_mnist", "one_hot")),
    ):
        for name in names:
            assert callable(getattr(module, name))
    product = ring.matmul(np.eye(2, dtype=np.uint64), np.ones((2, 1), np.uint64))
    assert product.tolist() == [[1], [1]]
