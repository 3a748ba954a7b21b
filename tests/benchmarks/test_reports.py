"""The benchmarks' pages: self-contained, with the run's figures and nothing else."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "mnist"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


class Page(HTMLParser):
    """What a page loads from elsewhere, its ids, and its tables' cells."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.tags, self.cells, self._in = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self._in = tag
        self.ids += [given["id"]] if "id" in given else []
        for name in ("src", "href", "xlink:href"):
            where = given.get(name) or "#"
            if not where.startswith(("#", "data:")):
                self.loads.append(where)

    def handle_data(self, data):
        if self._in in ("td", "th") and data.strip():
            self.cells.append(data.strip())


def check(path, figures):
    text = path.read_text()
    page = Page(text)
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert page.tags.count("svg") == figures
    # Drawings take the page's colour: black is never written down, nor what stood for it.
    assert "#010203" not in text
    assert "currentColor" in text
    assert "prefers" in text or "color-scheme: light dark" in text
    assert 'name="viewport"' in text
    assert "Machine: " in text
    assert str(ROOT) not in text
    return page, text


@pytest.fixture(autouse=True)
def _needs_matplotlib():
    pytest.importorskip("matplotlib")


def test_main_job(tmp_path):
    path = tmp_path / "run.html"
    done = run("encrypted_mnist", "--layers", "16", "--epochs", "2", "--report", path)
    assert done.returncode == 0, done.stderr
    page, text = check(path, figures=2)
    # The page holds what the terminal shows.
    rounds = re.search(r"^rounds +(\d+)$", done.stdout, re.MULTILINE)[1]
    assert rounds == page.cells[page.cells.index("rounds") + 1]
    drawing = text[text.index('aria-label="confusion matrix"') :]
    counts = [int(n) for n in re.findall(r">(\d+)</text>", drawing[: drawing.index("</svg>")])]
    # Twenty are the names of the classes on both axes.
    assert sum(counts) - 2 * sum(range(10)) == 450


def test_training(tmp_path):
    path = tmp_path / "run.html"
    done = run(
        "train_mnist", "--rows", 200, "--layers", "8", "--epochs", 2, "--report", path,
        "--figure", tmp_path / "curves.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page, _ = check(path, figures=1)
    assert "epoch" in page.cells
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_networks(tmp_path):
    if not MNIST.is_dir():
        pytest.skip("needs the four MNIST files in ../shared/mnist")
    path = tmp_path / "run.html"
    done = run(
        "networks", "--data", MNIST, "--networks", "A,D", "--epochs", 1, "--train", 200,
        "--images", 10, "--repeats", 3, "--report", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, text = check(path, figures=2)
    assert "Network A" in text
    assert "Network D" in text


@pytest.mark.parametrize("script", ["encrypted_mnist", "train_mnist", "networks"])
def test_a_report_that_cannot_be_written_is_told_first(script, tmp_path):
    done = run(script, "--report", tmp_path / "nowhere" / "run.html")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --report must be a file in a folder that exists")
    assert "Traceback" not in done.stderr
