"""The benchmarks' pages: self-contained, with the run's figures and nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest

from tests.helpers.scripts import MNIST, ROOT, check_refused, run


class Page(HTMLParser):
    """What a page loads from elsewhere, its ids, and its tables' cells."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.tags, self.cells, self.tag = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.tag = tag
        self.ids += [given["id"]] if "id" in given else []
        for name in ("src", "href", "xlink:href"):
            where = given.get(name) or "#"
            if not where.startswith(("#", "data:")):
                self.loads.append(where)

    def handle_data(self, data):
        if self.tag in ("td", "th") and data.strip():
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


def words(text):
    """Return what the drawings say."""
    return set(re.findall(r">([^<>]+)</text>", text))


def numbers(text):
    return [float(word) for word in words(text) if re.fullmatch(r"\d+(\.\d+)?", word)]


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


def test_processes(tmp_path):
    path = tmp_path / "run.html"
    done = run("processes", "--rows", "1,3", "--turns", 2, "--repeats", 2, "--report", path)
    assert done.returncode == 0, done.stderr
    page, text = check(path, figures=1)
    assert {"1 image", "3 images", "a local session"} <= words(text)
    # The page holds what the terminal shows, and the drawing the medians.
    for rows in ("1", "3"):
        found = re.search(rf"^{rows} +(\S+ \S+) +(\S+) \S+ +(\S+)", done.stdout, re.MULTILINE)
        cells = page.cells[page.cells.index(rows) :]
        assert [cells[1], cells[2].split()[0], cells[3]] == list(found.groups())
        assert any(
            float(found[2]) == pytest.approx(float(word), rel=0.01) for word in numbers(text)
        )


def test_watched():
    done = run("watched", "--rows", 2, "--turns", 1, "--repeats", 1, "--json")
    assert done.returncode == 0, done.stderr
    alices, on_shares = json.loads(done.stdout)["batches"]
    for each in (alices, on_shares):
        plain, checked = each["semi-honest"], each["malicious"]
        assert checked["rounds"] == plain["rounds"] + 2
        assert checked["correction_bytes"] == 2 * plain["correction_bytes"]

    def times(each):
        plain, checked = each["semi-honest"], each["malicious"]
        pairs = zip(checked["bytes_of"], plain["bytes_of"], strict=True)
        return *(mine / before for mine, before in pairs), (
            checked["bytes_in_all"] / plain["bytes_in_all"]
        )

    # Who owns no input of a call sends half, the owner of the images four fifths.
    for found, most in ((on_shares, (0.51, 0.53, 0.8, 0.67)), (alices, (0.92, 0.68, 0.89, 0.85))):
        assert all(mine < limit for mine, limit in zip(times(found), most, strict=True))


def test_slow_networks(tmp_path, benchmark, monkeypatch, capsys):
    slow = benchmark("slow_networks")
    monkeypatch.setattr(slow, "ROUND_TRIPS", (0.01,))
    monkeypatch.setattr(slow, "BANDWIDTHS", (1e8,))
    monkeypatch.setattr(slow, "ROWS", (1, 2))
    path = tmp_path / "run.html"
    options = slow.arguments(["--turns", "1", "--repeats", "2", "--report", str(path)])
    assert slow.script.main(slow.job, options) == 0
    printed = capsys.readouterr().out
    page, text = check(path, figures=1)
    assert {"10 ms, 100 Mbit/s: 1 image", "10 ms, 100 Mbit/s: 2 images"} <= words(text)
    assert {"floor by rounds", "floor by trips"} <= words(text)
    for line in printed.splitlines()[2:4]:
        network = re.split(" {2,}", line)[0]
        cell = page.cells[page.cells.index(network) + 1]
        assert cell in line
        median = float(cell.split()[0])
        assert any(median == pytest.approx(number, rel=0.01) for number in numbers(text))


def drawn(figure):
    """Return what a drawing of times shows: the names of its rows, and the numbers of each mark."""
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    return names, {line.get_label(): [round(x, 9) for x in line.get_xdata()] for line in ax.lines}


def test_measured_times_are_drawn_beside_their_marks(benchmark):
    rows = [
        {"round_trip": 0.02, "bandwidth": 1e9, "rows": 128, "seconds": [0.5, 0.25, 0.125],
         "round_floor": 0.1, "trip_floor": 0.2},
        {"round_trip": 0.06, "bandwidth": 1e8, "rows": 1, "seconds": [1.0],
         "round_floor": 0.3, "trip_floor": 0.4},
    ]  # fmt: skip
    figure = benchmark("slow_networks").draw({"rows": rows})
    assert drawn(figure) == (
        ["20 ms, 1,000 Mbit/s: 128 images", "60 ms, 100 Mbit/s: 1 image"],
        {
            "measured, median and range": [250, 1000],
            "floor by rounds": [100, 300],
            "floor by trips": [200, 400],
        },
    )
    (least, _), (greatest, _) = figure.axes[0].collections[0].get_segments()[0]
    assert (least, greatest) == (125, 500)
    batches = [{"rows": 1000, "medians": {"local": [0.5, 0.25, 1], "processes": [2, 3, 1]}}]
    figure = benchmark("processes").draw({"batches": batches})
    assert drawn(figure) == (
        ["1,000 images"], {"measured, median and range": [2000], "a local session": [500]}
    )  # fmt: skip


@pytest.mark.parametrize(
    "script", ["encrypted_mnist", "train_mnist", "networks", "processes", "slow_networks"]
)
def test_a_report_that_cannot_be_written_is_told_first(script, tmp_path):
    done = run(script, "--report", tmp_path / "nowhere" / "run.html")
    assert done.stdout == ""
    check_refused(done, "error: --report must be a file in a folder that exists")
