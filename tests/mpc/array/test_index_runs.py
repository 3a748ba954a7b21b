"""Index arrays that are runs are slices to the provider, and to nobody anything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core.correlation import MaskRef, with_runs

SHAPE = (6, 5, 4)
WHOLE = np.arange(120).reshape(SHAPE)

arrays = st.one_of(
    st.lists(st.integers(-6, 6), max_size=6).map(lambda k: np.array(k, np.int64)),
    st.builds(
        lambda start, stop, step: np.arange(start, stop, step),
        st.integers(-6, 5), st.integers(-6, 5), st.sampled_from([1, 2, -1, -3]),
    ),
    st.lists(st.booleans(), min_size=3, max_size=7).map(np.array),
    st.sampled_from([np.array([2], np.uint8), np.array([[0, 1]]), np.array(1), np.array([1.0])]),
)  # fmt: skip
others = st.sampled_from([slice(None), slice(1, 3), slice(None, None, -1), None, Ellipsis, 2, True])


def of_numpy(keys):
    try:
        return WHOLE[keys]
    except IndexError:
        return None


@settings(deadline=None, max_examples=1000)
@given(st.lists(st.one_of(arrays, others), min_size=1, max_size=4).map(tuple))
def test_the_same_elements(keys):
    want = of_numpy(keys)
    found = of_numpy(with_runs(keys, SHAPE))
    if want is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, want)


RUNS = {
    "rows that follow one another": (np.arange(1, 5), slice(1, 5, 1)),
    "one row": (np.array([3]), slice(3, 4, 1)),
    "every second": (np.array([0, 2, 4]), slice(0, 6, 2)),
    "backwards": (np.array([5, 4, 3, 2, 1, 0]), slice(5, None, -1)),
    "backwards, not all": (np.array([4, 2]), slice(4, 0, -2)),
    "from the end": (np.array([-2, -1]), slice(4, 6, 1)),
    "bools": (np.array([False, True, True, True, False, False]), slice(1, 4, 1)),
    "none": (np.zeros(6, bool), slice(0, 0)),
}
NO_RUNS = {
    "other numbers": np.array([0, 2, 3]),
    "the same twice": np.array([1, 1]),
    "other bools": np.array([True, False, False, True, True, False]),
}


def told(s, use, monkeypatch):
    """Return the masks that the provider is told of."""
    seen = []
    correct = s.source.provider.correct

    def listen(id, correlation, out):
        correct(id, correlation, out)
        inner = getattr(correlation, "cross_term", None) or correlation
        seen.extend(v for v in vars(inner).values() if isinstance(v, MaskRef))

    monkeypatch.setattr(s.source.provider, "correct", listen)
    use()
    return seen


def arrays_in(ref):
    return [
        key
        for kind, keys in ref.views
        if kind == "index"
        for key in keys
        if isinstance(key, np.ndarray)
    ]


@pytest.mark.dealt
@pytest.mark.parametrize("name", [*RUNS, *NO_RUNS])
def test_what_the_provider_is_told_of_an_index(pair, monkeypatch, name):
    key = RUNS[name][0] if name in RUNS else NO_RUNS[name]
    if name in RUNS:
        assert with_runs((key,), (6,)) == (RUNS[name][1],)
    a = np.arange(24.0).reshape(6, 4)
    x = pair.share(a, owner="alice")
    x.mask_data()
    found = []
    refs = told(pair, lambda: found.append((x[key] * x[key]).reveal()), monkeypatch)
    np.testing.assert_array_equal(found[0], a[key] ** 2)
    assert refs or not len(a[key])
    assert any(map(arrays_in, refs)) == (name in NO_RUNS)


@pytest.mark.dealt
def test_what_is_masked_anew_has_no_index(pair, monkeypatch):
    """As the docs advise for a filter that follows from data."""
    a, keep = np.arange(24.0).reshape(6, 4), NO_RUNS["other bools"]
    x = pair.share(a, owner="alice")
    x.mask_data()
    found = []

    def use():
        kept = x[keep] + 0
        found.append((kept * kept).reveal())

    refs = told(pair, use, monkeypatch)
    np.testing.assert_array_equal(found[0], a[keep] ** 2)
    assert refs
    assert all(ref.views == () and ref.part.shape == (3, 4) for ref in refs)


def test_errors_are_the_same(pair):
    x = pair.share(np.zeros(SHAPE), owner="alice")
    for key in (np.array([6]), np.array([-7]), np.zeros(5, bool), np.array([0.5])):
        with pytest.raises((mpc.ShapeError, mpc.DtypeError)):
            x[key]
