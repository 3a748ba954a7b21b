"""The tour runs from top to bottom, and its committed outputs are complete."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"


def run_tour():
    spec = importlib.util.spec_from_file_location("run_tour", ROOT / "docs" / "run_tour.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run()


def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def output_of(notebook, words):
    """Return what the one cell with these words in its source has printed."""
    (found,) = [cell for cell in cells(notebook) if words in cell.source]
    return printed(found)


@pytest.fixture(scope="module")
def ran():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        return run_tour()


@pytest.fixture(params=["committed", "run now"])
def tour(request):
    if request.param == "committed":
        return nbformat.read(TOUR, as_version=4)
    return request.getfixturevalue("ran")


def test_every_cell_has_run_without_errors_or_warnings(tour):
    nbformat.validate(tour)
    assert [cell.execution_count for cell in cells(tour)] == list(range(1, len(cells(tour)) + 1))
    for cell in cells(tour):
        kinds = {(o.output_type, o.get("name")) for o in cell.outputs}
        assert kinds <= {("stream", "stdout"), ("display_data", None), ("execute_result", None)}
        last = cell.source.splitlines()[-1]
        if "plt.subplots" in cell.source or re.search(r"\bplots?[.(]", last):
            assert any("image/png" in o.get("data", {}) for o in cell.outputs)


def test_the_evaluation_is_right(tour):
    plain = re.search(r"[\d.]+%", output_of(tour, "accuracy in the clear"))[0]
    revealed = re.search(
        r"revealed: (\d+) of (\d+) right, ([\d.]+%)", output_of(tour, "still secret")
    )
    assert float(plain[:-1]) > 90
    assert abs(float(revealed[3][:-1]) - float(plain[:-1])) <= 0.5
    learned = ast.literal_eval(output_of(tour, "run_apart(").splitlines()[-1])
    assert set(learned) == {"alice", "bob", "client"}
    # On shares the last bit is rounded at random, which a tie could notice.
    assert max(learned.values()) - min(learned.values()) == 0
    assert abs(learned["alice"] - int(revealed[1])) <= 1


def test_two_parties_alone_get_the_same(tour):
    assert "x1 y2: 42\n" in output_of(tour, "the client's:")
    hits = int(re.search(r"revealed: (\d+) of", output_of(tour, "still secret"))[1])
    lines = output_of(tour, "megabytes").splitlines()
    found = [re.match(r"provider=(\S+): (\d+) right, (\d+) rounds", line) for line in lines]
    assert [match[1] for match in found] == ["'crypto'", "None"]
    assert all(abs(int(match[2]) - hits) <= 1 for match in found)
    # As the words below it say.
    assert int(found[0][3]) < int(found[1][3])


def test_views_tell_nothing_and_secrets_would(tour):
    lines = [line.split() for line in output_of(tour, "chi2_contingency").splitlines()[1:]]
    chances = {line[0]: [float(word) for word in line[-3:]] for line in lines}
    assert set(chances) == {"the", "alice", "bob", "client"}
    assert max(chances.pop("the")) < 1e-11
    for found in chances.values():
        assert min(found) > 1e-9
    assert output_of(tour, "same list").startswith("same list: True")


def test_nothing_of_this_machine_is_in_it():
    text = TOUR.read_text()
    for word in ("/root", "/home", "/tmp", "/work", "site-packages", "Traceback"):
        assert word not in text


def test_committed_outputs_are_those_of_the_committed_code(ran):
    """What does not depend on fresh randomness is the same."""
    committed = nbformat.read(TOUR, as_version=4)
    assert [c.source for c in committed.cells] == [c.source for c in ran.cells]
    for words in (
        "on a clock of 12",
        "lam_mu",
        "print(s.cost())",
        "40_000",
        "careless",
        "same list",
    ):
        then, now = output_of(committed, words), output_of(ran, words)
        assert re.sub(r"\d{9,}", "#", then) == re.sub(r"\d{9,}", "#", now)
