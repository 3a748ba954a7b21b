"""Decision trees on shares: every row comes to the leaf that it comes to in the clear."""

import numpy as np
import pytest

import mpc
from mpc.protocols import sign, trees
from ring.errors import ArgumentError, ShapeError


def grown(random, depths):
    """Return trees of random shape."""
    left, right, roots, leaves = [], [], [], 0

    def grow(depth):
        nonlocal leaves
        if depth == 0 or (depth < 3 and random.random() < 0.3):
            leaves += 1
            return ~(leaves - 1)
        node = len(left)
        left.append(None)
        right.append(None)
        left[node], right[node] = grow(depth - 1), grow(depth - 1)
        return node

    for depth in depths:
        roots.append(grow(depth))
    return trees.Forest(tuple(left), tuple(right), tuple(roots))


def wanted(forest, x, thresholds):
    found = np.zeros((len(x), forest.leaves), np.int64)
    for row in range(len(x)):
        for node in forest.roots:
            while node >= 0:
                goes_right = x[row, node] > thresholds[node]
                node = forest.right[node] if goes_right else forest.left[node]
            found[row, ~node] = 1
    return found


@pytest.mark.parametrize("rows", [1, 64, 70])
@pytest.mark.parametrize(
    ("parties", "provider"),
    [(("alice", "bob"), "crypto"), (("a", "b", "c"), "crypto"), (("alice", "bob"), None)],
)
def test_rows_come_to_their_leaves_ties_included(parties, provider, rows):
    random = np.random.default_rng(rows)
    forest = grown(random, (4, 5, 9, 6))
    nodes = len(forest.left)
    x = random.integers(-3, 4, (rows, nodes)) * 0.5
    x[:, 0] = 2.0**14 - random.integers(0, 2, rows) * 2.0**-16
    thresholds = random.integers(-3, 4, nodes) * 0.5
    thresholds[0] = 2.0**14 - 2.0**-16
    with mpc.Session(parties, provider=provider) as s:
        secret = s.share(x, owner=parties[0])
        found = trees.leaves_of(secret, s.share(thresholds, owner=parties[1]), forest)
        assert found.binary and found.bound == 1
        revealed = found.reveal()
    np.testing.assert_array_equal(revealed, wanted(forest, x, thresholds))
    assert (revealed.sum(axis=1) == len(forest.roots)).all()


def test_costs_what_it_declares():
    forest = grown(np.random.default_rng(3), (6, 6, 4))
    nodes, rows = len(forest.left), 70
    for parties in (("alice", "bob"), ("a", "b", "c")):
        with mpc.Session(parties) as s:
            x = s.share(np.ones((rows, nodes)), owner=parties[0])
            thresholds = s.share(np.ones(nodes), owner=parties[1])
            before = s.cost()
            trees.leaves_of(x, thresholds, forest)
            spent = s.cost() - before
        window = sign.count_bits(x.bound + thresholds.bound)
        declared = trees.cost(len(parties), forest, rows, window)
        assert (spent.total.rounds, spent.total.bytes_sent) == (
            declared.rounds,
            declared.bytes_sent,
        )
        assert spent.total.correction_bytes == declared.correction_bytes
        assert declared.rounds == 2 + 2 + 1


def test_paths_share_what_they_have_in_common():
    forest = grown(np.random.default_rng(5), (12,))
    (first, *_) = trees._rounds(forest.paths, 4)
    assert len(set(first)) == len(first) < sum(-(-len(path) // 4) for path in forest.paths)


@pytest.mark.parametrize(
    ("left", "right", "roots"),
    [
        ((), (), ()),
        ((~0,), (~1,), (0, ~2)),
        ((~0,), (~0,), (0,)),
        ((0,), (~0,), (0,)),
        ((~0,), (~1,), (0, 0)),
        ((~0, ~1), (~2, ~3), (0,)),
        ((~0,), (~2,), (0,)),
        ((1, 0), (~0, ~1), (0,)),
        ((~0,), (~1, ~2), (0,)),
    ],
)
def test_what_is_no_forest(left, right, roots):
    with pytest.raises(ArgumentError, match="each inner node and each leaf once"):
        trees.Forest(left, right, roots)


def test_shapes_that_do_not_fit():
    forest = trees.Forest((~0,), (~1,), (0,))
    with mpc.Session() as s:
        x, t = s.share(np.ones((3, 2)), owner="alice"), s.share(np.ones(1), owner="bob")
        with pytest.raises(ShapeError, match=r"\(rows, 1\)"):
            trees.leaves_of(x, t, forest)
