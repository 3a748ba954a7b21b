"""The confusion matrix on shares, and the figures."""

import sys

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

import mpc
import nn
from mpc.core.cost import Spent

rng = np.random.default_rng(8)
TRUE, GUESSED = rng.integers(0, 10, 300), rng.integers(0, 10, 300)


def share(session, labels, owner):
    return session.share(nn.one_hot(labels, 10), owner=owner, bound=1)


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
def test_counts_are_scikit_learns(parties):
    scores = rng.normal(size=(300, 10))
    with mpc.Session(parties) as s:
        targets = share(s, TRUE, "bob")
        found = nn.metrics.confusion_matrix(targets, share(s, GUESSED, "alice")).reveal()
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, confusion_matrix(TRUE, GUESSED))
        best = s.share(scores, owner="alice").argmax(axis=1, one_hot=True)
        found = nn.metrics.confusion_matrix(targets, best).reveal()
        np.testing.assert_array_equal(found, confusion_matrix(TRUE, scores.argmax(axis=1)))


def test_only_the_counts_are_revealed():
    with mpc.Session() as s:
        targets, guessed = share(s, TRUE, "bob"), share(s, GUESSED, "alice")
        before = s.cost()
        counts = nn.metrics.confusion_matrix(targets, guessed)
        assert isinstance(counts, mpc.SharedArray)
        counts.reveal()
        spent = s.cost() - before
    # One opening under masks, and one of the 100 counts.
    assert spent.rounds == 2
    assert spent.by_protocol["reveal"].bytes_sent == 8 * 100
    assert spent.by_protocol["product"].bytes_sent == 8 * 10 * 300
    assert set(spent.by_protocol) == {"product", "reveal"}


def test_refusals():
    with mpc.Session() as s, mpc.Session() as other:
        targets = share(s, TRUE, "bob")
        with pytest.raises(mpc.DtypeError, match="predicted must be a SharedArray, got ndarray"):
            nn.metrics.confusion_matrix(targets, nn.one_hot(TRUE, 10))
        with pytest.raises(mpc.DtypeError, match="predicted must hold whole numbers"):
            nn.metrics.confusion_matrix(targets, s.share(np.ones((300, 10)), owner="bob"))
        with pytest.raises(mpc.ShapeError, match=r"\(300, 10\) and \(299, 10\)"):
            nn.metrics.confusion_matrix(targets, targets[:299])
        with pytest.raises(mpc.SessionError, match="another session"):
            nn.metrics.confusion_matrix(targets, share(other, GUESSED, "alice"))


@pytest.fixture
def cost():
    model = nn.MLP.from_parameters([np.eye(4), np.zeros(4), np.ones((4, 2)), np.zeros(2)])
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        secret(secret.share_rows(np.eye(4), owner="bob")).argmax(axis=1).reveal()
        return s.cost()


def bars(ax):
    return [bar.get_width() for bar in ax.patches]


def test_cost_as_bars(cost):
    pytest.importorskip("matplotlib")
    rounds, sent, seconds = cost.plot().axes
    layers = cost.by_layer
    assert [label.get_text() for label in rounds.get_yticklabels()] == [
        "in no layer" if name == "-" else name for name in layers
    ]
    assert bars(rounds) == [spent.rounds for spent in layers.values()]
    assert sent.get_xlabel() == "kB"
    assert bars(sent) == [spent.bytes_sent / 1e3 for spent in layers.values()] + [
        spent.correction_bytes / 1e3 for spent in layers.values()
    ]
    assert seconds.get_xlabel() == "milliseconds"
    assert bars(seconds) == pytest.approx([1e3 * spent.seconds for spent in layers.values()])
    # A hundred times as much is megabytes.
    part = Spent(1, 10**8, 0, 2.0)
    _, sent, seconds = mpc.Cost(part, {}, {"a": part}).plot().axes
    assert (sent.get_xlabel(), seconds.get_xlabel()) == ("MB", "seconds")
    assert bars(sent) == [100, 0]
    assert bars(seconds) == [2]
    rounds, sent = cost.plot(by="protocol").axes
    assert bars(rounds) == [spent.rounds for spent in cost.by_protocol.values()]
    with pytest.raises(mpc.ArgumentError, match="by must be 'layer' or 'protocol', got 'party'"):
        cost.plot(by="party")


def test_learning_curves():
    pytest.importorskip("matplotlib")
    figure = nn.plots.learning_curves({"plain": [0.5, 0.75], "encrypted": [0.25, 0.5]})
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["plain", "encrypted"]
    assert [list(line.get_ydata()) for line in lines] == [[50, 75], [25, 50]]
    assert [list(line.get_xdata()) for line in lines] == [[1, 2], [1, 2]]
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(mpc.ArgumentError, match="got none"):
        nn.plots.learning_curves({"plain": []})
    with pytest.raises(mpc.ArgumentError, match="got 0"):
        nn.plots.learning_curves({})


def test_confusion_matrix_as_a_figure():
    pytest.importorskip("matplotlib")
    counts = np.array([[5, 1], [0, 7]])
    ax = nn.plots.confusion_matrix(counts, ["cat", "dog"]).axes[0]
    assert {(t.get_position(), t.get_text()) for t in ax.texts} == {
        ((0, 0), "5"), ((1, 0), "1"), ((1, 1), "7"),
    }  # fmt: skip
    with pytest.raises(mpc.ShapeError, match="classes must have 2 names, got 1"):
        nn.plots.confusion_matrix(counts, ["cat"])
    with pytest.raises(mpc.ShapeError, match="counts must have shape"):
        nn.plots.confusion_matrix(counts[:1])
    with mpc.Session() as s, pytest.raises(mpc.RevealError, match="counts are secret"):
        nn.plots.confusion_matrix(s.share(counts, owner="alice"))


def test_without_matplotlib(cost, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(mpc.MissingExtraError, match=r"sotto-mpc\[plot\]"):
        cost.plot()
    assert issubclass(mpc.MissingExtraError, ImportError)
