"""A value that leaves its limit is a RangeError, in every layer and by however much; within them, never.

The limits are those of Bounds; how they are checked on shares is mpc.protocols.limits.
"""

import json
import os

import numpy as np
import pytest

import mpc
import nn
from mpc.protocols import limits as limits_on_shares
from mpc.protocols import linear
from nn.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool,
    ReLU,
    Reshape,
    Sigmoid,
)
from nn.models.predictors import Classifier, Regressor
from nn.serving import answers
from nn.shared import proof, workers
from nn.shared.side_by_side import architecture, side_by_side
from ring.errors import ArgumentError, DataError, DtypeError, RangeError
from tests.helpers import calibrated
from tests.helpers.calibrated import UNIT, answer, bounds_of, dense, eye, refused, shared

KINDS = [(2, "crypto"), (3, "crypto"), (2, None)]


@pytest.fixture(scope="module", params=KINDS, ids=["two", "three", "alone"])
def session(request):
    parties, provider = request.param
    with mpc.Session(("alice", "bob", "carol")[:parties], provider=provider) as s:
        yield s


# Networks that pass a value on as it is, up to the layer that is to fail.

CHAINS = {
    "ReLU": lambda: [eye(), ReLU(), eye(), ReLU(), eye(), ReLU(), eye()],
    "nothing between": lambda: [eye(), eye(), eye(), eye()],
    "leaky ReLU": lambda: [eye(), LeakyReLU(0.5), eye(), LeakyReLU(0.5), eye()],
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("layer", [0, 1])
def test_every_excess_in_every_layer(session, name, layer):
    limit, count = 8.0, 0
    layers = CHAINS[name]()
    weighted = [k for k, one in enumerate(layers) if one.parameters]
    # In this layer the input of 8 becomes anything, by its bias: by a unit, by a factor, by powers of two
    # up to that of the largest window, from either side.
    place = weighted[layer]
    overs = (UNIT, 1.0, 8.0, 8 * 16.0, 2.0**12, 2.0**28 - 8)
    for over in overs if session.pair is None else overs[::5]:
        # ReLU has no limit below; a leaky one makes the next layer's input smaller there.
        for sign in (1, -1) if name == "nothing between" or (layer, name[0]) == (0, "l") else (1,):
            changed = list(layers)
            changed[place] = dense([1.0], bias=[sign * min(over, 2.0**14)])
            if over > 2.0**14:
                changed[place] = dense([sign * 2.0**11], bias=[0.0])
            secret = shared(session, changed, limit, limit)
            count += refused(secret, [sign * limit])
    assert count >= 2
    # At the limit, and just inside it, all is well.
    secret = shared(session, layers, limit, limit)
    X = np.array([[limit], [-limit], [limit - UNIT], [0.0], [UNIT]])
    expected = X
    for one in layers:
        expected = one(expected)
    assert np.abs(answer(secret, X) - expected).max() < 1e-3


def test_a_value_of_a_multiple_of_the_window(session):
    """Beyond by exactly 2^L: the window is that of the layer's reach, and holds the value."""
    for power in (4, 14):
        factor = 2.0**power
        layers = [eye(factor=factor), ReLU(), eye(), ReLU(), eye()]
        secret = shared(session, layers, 2.0, 4.0)
        # 2 + 2^k for every k that a window of the limit alone might have.
        for k in range(1, power + 2, 1 if session.pair is None else 5):
            refused(secret, [(1 + 2.0**k) / factor])
        assert answer(secret, [1.0 / factor]) == pytest.approx(1.0, abs=1e-3)


def test_a_window_that_is_too_narrow_would_let_a_value_pass(monkeypatch):
    """Why the owner works out what each layer can reach, and why it is no matter of the limit."""
    layers = [eye(factor=2.0**12), ReLU(), eye(), ReLU(), eye()]
    model = Regressor(layers, 1, flat=False)
    low, high = -4.0, 4.0
    wrong = nn.Bounds((None, 2.0, None, 2.0, None), (2.0, None, 2.0, None, 2.0), 2.0**40)
    X = [[(2.0**12 + 1) / 2.0**12]]  # 4097 behind the first layer
    with mpc.Session() as s:
        with pytest.raises(RangeError, match=r"layer 1, Dense.* can reach .* more than the 2"):
            model.share(s, "alice", low=low, high=high, bounds=wrong)
        monkeypatch.setattr("nn.fixed_point.audit.fits_by_itself", lambda *_: None)
        secret = model.share(s, "alice", low=low, high=high, bounds=wrong)
        # 20 bits: 4097 is 1 modulo 2^4, which is inside. Nothing shows that it is beyond the limit of 2.
        assert answer(secret, X) == pytest.approx(4097, abs=0.01)
        right = nn.Bounds(wrong.limits, (2.0**15, None, 4.0, None, 4.0), 2.0**40)
        refused(model.share(s, "alice", low=low, high=high, bounds=right), X)


def test_a_product_that_would_wrap_around_to_zero(session):
    """Values whose next product is a multiple of 2^64: they are caught before, where they arise."""
    # 2^4 * 2^14 = 2^18, encoded 2^34; times 2^14, encoded 2^30, that is 2^64.
    layers = [eye(factor=2.0**14), ReLU(), eye(factor=2.0**14), ReLU(), eye()]
    secret = shared(session, layers, 2.0**9, 16.0)
    for x in (16.0, 15.0, 2.0**-4, 8.0):
        refused(secret, [x])
    # 2^-5 becomes 2^9 behind the first layer, its limit, and 2^23 behind the second, which is beyond.
    refused(secret, [2.0**-5])
    assert answer(secret, [0.0]) == pytest.approx(0.0, abs=1e-3)


def test_rows_of_a_client_are_words_that_nobody_has_seen(session):
    """Forged shares: beyond the range by a unit, and words whose first product is a multiple of 2^64."""
    secret = shared(session, [eye(), ReLU(), eye()], 8.0, 8.0)
    parties = session.size
    top = 8 * 2**16
    for word, good in (
        (top, True), (-top, True), (0, True), (top + 1, False), (-top - 1, False),
        (2**48, False), (2**63, False), (2**62, False), (-(2**62), False), (-(2**63) + 1, False),
    ):  # fmt: skip
        shares = np.random.default_rng(5).integers(0, 2**63, (parties, 1, 1)).astype(np.uint64)
        shares[0] += np.uint64(word % 2**64) - shares.sum(axis=0)
        rows = secret.rows_from_shares(shares)
        if good:
            assert secret(rows).reveal() == pytest.approx(max(word, 0) / 2**16, abs=1e-3)
        else:
            with pytest.raises(RangeError, match="left its limit"):
                secret(rows)


def test_rows_of_a_client_are_compared_with_the_range_once(session, monkeypatch):
    """By the service's check, which covers the proof's; those of a trusted client by the proof alone."""
    secret = shared(session, [eye(), ReLU(), eye()], 8.0, 8.0)
    within, compared = limits_on_shares.words_within, []
    monkeypatch.setattr(
        limits_on_shares, "words_within", lambda *a: compared.append(a[1]) or within(*a)
    )

    def rounds(program, word):
        shares = np.zeros((session.size, 1, 1), np.uint64)
        shares[0] = np.uint64(word % 2**64)
        before = session.cost().rounds
        program(secret, secret.rows_from_shares(shares))
        return session.cost().rounds - before

    def checked(model, x):
        assert answers.requests_inside([model], [1], x).all()
        assert answers.answer_to_checked(model, x, "values").reveal() == pytest.approx(8, abs=1e-3)

    # The weights are opened first.
    rounds(lambda model, x: answers.answer_of(model, x, "values"), 0)
    alone = rounds(lambda model, x: answers.answer_of(model, x, "values"), 0)
    assert set(compared) == {8 * 2**16}
    # What the service's check lets through is what the proof would: both ends, and no unit beyond.
    low, high = secret.encoded_range
    assert -low == high == compared[0]
    compared.clear()
    rounds(checked, 8 * 2**16)
    assert not compared
    after = rounds(lambda model, x: answers.answer_to_checked(model, x, "values"), 0)
    assert not compared and after < alone
    assert not secret.rows_are_checked


def test_one_row_of_many_and_one_element_of_many(session):
    rng = np.random.default_rng(0)
    layers = [
        Dense(rng.normal(size=(6, 7)), rng.normal(size=7)), ReLU(),
        Dense(rng.normal(size=(7, 5)), rng.normal(size=5)), ReLU(),
        Dense(rng.normal(size=(5, 3)), np.zeros(3)),
    ]  # fmt: skip
    model = Classifier(layers, [0, 1, 2], 6)
    X = rng.uniform(-1, 1, size=(130, 6))
    bounds = model.calibrate(X, margin=1.01, low=-64, high=64)
    bounds = nn.Bounds(bounds.limits, bounds.reaches, 2.0**40)
    secret = model.share(session, session.parties[0], low=-64, high=64, scores=True, bounds=bounds)
    expected = model.decision_function(X)
    rows = secret.share_rows(X, session.parties[1])
    assert np.abs(secret.decision_function(rows) - expected).max() < 1e-2
    assert (secret.predict(rows) == expected.argmax(axis=1)).mean() > 0.95
    # In each of several batches.
    for place in (0, 64, 129):
        some = X.copy()
        some[place] *= 64
        rows = secret.share_rows(some, session.parties[1])
        for call in (
            secret.predict,
            secret.decision_function,
            secret.winners,
            lambda rows: secret.predict(rows, to=session.parties[0]),
            lambda rows: secret(rows, batch_size=64),
        ):
            with pytest.raises(RangeError, match="left its limit"):
                call(rows)


IMAGES = {
    "pooled before": [MaxPool(2), ReLU()],
    "pooled behind": [ReLU(), MaxPool(2)],
    "mean behind": [ReLU(), AveragePool(2)],
    "mean before": [AveragePool(2), ReLU()],
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(session, name):
    rng = np.random.default_rng(1)
    layers = [
        Reshape(4, 4, 1),
        Convolution(rng.normal(size=(3, 3, 1, 2)), np.zeros(2), padding="same"),
        *IMAGES[name],
        Convolution(rng.normal(size=(2, 2, 2, 3)), np.zeros(3)),
        Sigmoid(),
        Flatten(),
        Dense(rng.normal(size=(3, 2)), np.zeros(2)),
    ]
    model = Regressor(layers, 16)
    X = rng.uniform(-1, 1, size=(20, 16))
    bounds = model.calibrate(X, margin=1.5, low=-1000, high=1000)
    checked = [repr(x) for x, limit in zip(layers, bounds.limits, strict=True) if limit is not None]
    assert checked == (["Convolution(1, 2, kernel=(3, 3), padding='same')"]
                       if name == "mean before" else ["ReLU()"])  # fmt: skip
    bounds = nn.Bounds(bounds.limits, bounds.reaches, 2.0**40)
    secret = model.share(session, session.parties[0], low=-1000, high=1000, bounds=bounds)
    assert np.abs(answer(secret, X) - model.predict(X)).max() < 1e-2
    refused(secret, 900 * X[:1])
    refused(secret, np.concatenate([X, 100 * X[3:4]]))


def test_the_soundness_error_is_that_of_forty_fair_coins():
    """Of one bit that is set, each combination takes notice with probability 1/2, anew in each run."""
    with mpc.Session() as s:
        counts = []
        for _ in range(60):
            excess = limits_on_shares.Excess(s)
            planes = np.zeros((2, 3), np.uint64)
            planes[0, 1] = 1 << 17
            excess.add(planes, 192, inside=False)
            x = s.share([1.0], owner="alice")
            counts.append(int(limits_on_shares.failures(x, excess).reveal()))
    # Binomial, 40 fair coins each: 1200 of 2400 on the average, with a standard deviation of 24.5. One
    # of the 60 has none or a single one in two runs out of a billion.
    assert 1000 < sum(counts) < 1400 and min(counts) > 1


@pytest.mark.parametrize(
    ("limits", "reaches", "error"),
    [
        ((None, 0.0, None), (8.0, None, 8.0), ArgumentError),
        ((None, -1.0, None), (8.0, None, 8.0), ArgumentError),
        ((None, np.nan, None), (8.0, None, 8.0), ArgumentError),
        ((None, np.inf, None), (8.0, None, 8.0), ArgumentError),
        ((None, 8.0, None), (np.nan, None, 8.0), ArgumentError),
        ((None, 8.0, None), (np.inf, None, 8.0), ArgumentError),
        ((None, "8", None), (8.0, None, 8.0), DtypeError),
        (8.0, (8.0, None, 8.0), DtypeError),
    ],
)
def test_numbers_that_are_no_bounds(limits, reaches, error):
    with pytest.raises(error):
        nn.Bounds(limits, reaches, 2.0**40)


def test_bounds_of_another_model_or_format():
    layers = [eye(), ReLU(), eye()]
    model = Regressor(layers, 1)
    good = bounds_of(layers, 8.0, 8.0)
    with mpc.Session() as s:
        for limits, reaches in (
            (good.limits[:2], good.reaches[:2]),
            ((8.0, None, None), good.reaches),
            ((None, None, None), good.reaches),
            (good.limits, (None, 8.0, None)),
        ):
            with pytest.raises(ArgumentError, match="must be those of this model's 3 layers"):
                model.share(s, "alice", low=-8, high=8, bounds=nn.Bounds(limits, reaches, 2.0**40))
        for limit, reach in ((2.0**16, 2.0**20), (8.0, 2.0**30)):
            wide = nn.Bounds((None, limit, None), (reach, None, reach), 2.0**40)
            with pytest.raises(RangeError, match="bounds: frac_bits=16, int_bits=15"):
                model.share(s, "alice", low=-8, high=8, bounds=wide)
        with pytest.raises(DtypeError, match="what calibrate returns"):
            model.share(s, "alice", low=-8, high=8, bounds=8)
        # Inputs of a wider range than the bounds are for.
        with pytest.raises(RangeError, match="more than the"):
            model.share(s, "alice", low=-100, high=100, bounds=good)


@pytest.mark.parametrize("margin", [1, 0.5, 0, -1, np.nan, np.inf, "8", True])
def test_margins_that_are_none(margin):
    with pytest.raises((ArgumentError, DtypeError), match="margin must be"):
        Regressor([eye()], 1).calibrate([[1.0]], margin=margin, low=0, high=1)


# Files, workers, plans.


@pytest.fixture(scope="module")
def deep():
    model, bounds = calibrated.deep_network()
    return model, bounds, model.predict(calibrated.rows())


def test_saved_shares_keep_their_limits(deep, tmp_path):
    model, bounds, labels = deep
    with mpc.Session() as s:
        nn.save_shares(model.share(s, "alice", bounds=bounds), tmp_path)
        path = tmp_path / "alice.npz"
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
        # Earlier versions, which would check nothing, refuse it.
        assert header["version"] == 4
    with mpc.Session() as s:
        again = nn.load_shares(s, tmp_path)
        assert again.bounds == bounds
        assert (again.predict(again.share_rows(calibrated.rows(), "bob")) == labels).all()
        with pytest.raises(RangeError, match="left its limit"):
            again.predict(again.share_rows(calibrated.rows_beyond(), "bob"))
    for change in (
        lambda h: h["bounds"]["limits"].__setitem__(1, None),
        lambda h: h["bounds"]["reaches"].__setitem__(0, 2.0**40),
        lambda h: h["bounds"].pop("largest"),
        lambda h: h.update(bounds=[1.0]),
        lambda h: h.pop("bounds"),
    ):
        other = json.loads(json.dumps(header))
        change(other)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        arrays["header"] = np.frombuffer(json.dumps(other).encode(), np.uint8)
        kept = path.read_bytes()
        with path.open("wb") as out:
            np.savez(out, **arrays)
        with mpc.Session() as s, pytest.raises(DataError):
            nn.load_shares(s, tmp_path)
        path.write_bytes(kept)


@pytest.mark.parametrize("answer", ["scores", "classes", "one-hot"])
def test_workers_leave_the_opening_to_their_parties(deep, answer):
    """What each worker runs, and what the party does with it; processes are in tests/parties."""
    model, bounds, labels = deep
    with mpc.Session() as s:
        secret = model.share(s, "alice", bounds=bounds)
        parameters = [p for layer in secret.layers for p in layer.parameters]
        for rows, inside in ((calibrated.rows(), True), (calibrated.rows_beyond(), False)):
            x = secret.share_rows(rows, "bob")
            program = workers.Evaluation(secret, answer, 16)
            before = s.cost().by_layer
            pieces = [program(s, x[:30], *parameters), program(s, x[30:], *parameters)]
            found = linear.concatenate(pieces)
            outputs = found.shape[1] - 1
            shape = (40,) if answer == "classes" else (40, outputs)
            if not inside:
                with pytest.raises(RangeError, match="left its limit"):
                    proof.split_failures(found, shape)
                continue
            got = proof.split_failures(found, shape).reveal()
            got = got if answer == "classes" else got.argmax(axis=1)
            assert (got == labels).all()
            assert before != s.cost().by_layer


@pytest.mark.parametrize("provider", ["crypto", None])
def test_a_plan_has_the_cost_of_a_run(deep, provider):
    model, bounds, _ = deep
    with mpc.Session(provider=provider) as s:
        secret = model.share(s, "alice", bounds=bounds)
        secret.predict(secret.share_rows(calibrated.rows(), "bob"))  # opens the weights
        X = secret.share_rows(calibrated.rows(), "bob")
        plan = s.plan(lambda p: secret.twin(p).predict(secret.twin_rows(p, X)))
        before = s.cost()
        secret.predict(X)
        assert plan.cost == s.cost() - before
        # Beside a network whose interval bounds fit: 5 rounds for the proof.
        before = s.cost()
        secret.bounds = None
        secret.predict(secret.share_rows(calibrated.rows(), "bob"))
        if provider:
            assert plan.cost.rounds == (s.cost() - before).rounds + 4


def test_a_format_that_holds_the_interval_bounds_takes_no_limits():
    """And costs what it has always cost, to the word: bounds that are not needed are not used."""
    rng = np.random.default_rng(2)
    model = nn.MLP.from_parameters(
        [rng.normal(size=(8, 6)), np.zeros(6), rng.normal(size=(6, 3)), np.zeros(3)]
    )
    X = rng.uniform(size=(20, 8))
    bounds = model.calibrate(X)
    costs = []
    for options in ({}, {"bounds": bounds}):
        with mpc.Session() as s:
            secret = model.share(s, "alice", **options)
            assert secret.bounds is None
            secret.predict(secret.share_rows(X, "bob"))
            costs.append(s.cost())
    assert costs[0] == costs[1]
    assert "limits" not in costs[0].by_layer


def test_rows_that_came_with_a_model_are_its_default(tmp_path):
    """Where interval bounds do not fit; without rows, the error says what to do."""
    model, _ = calibrated.deep_network()
    plain = Classifier(model.layers, np.arange(32), 32, (0.0, 64.0))
    with mpc.Session() as s:
        with pytest.raises(RangeError, match=r"share\(..., bounds=model.calibrate\(X\)\)"):
            plain.share(s, "alice")
        plain.take_rows(calibrated.rows())
        secret = plain.share(s, "alice")
        # The other parties have its outline, whose weights are zero, and find the same.
        assert secret.bounds == plain.bounds_ == plain.outline().share(s, "alice").bounds
        assert plain.share(s, "alice", low=0.0, high=0.5).bounds == plain.bounds_
        with pytest.raises(RangeError, match=r"for inputs in .*bounds=model.calibrate"):
            plain.share(s, "alice", low=0.0, high=1000.0)
        shallow = Classifier(model.layers[:3], np.arange(32), 32, (0.0, 64.0))
        shallow.take_rows(calibrated.rows())
        assert shallow.bounds_ is not None
        for one in (shallow, shallow.outline()):
            assert one.share(s, "alice").bounds is None
        rows = secret.share_rows(calibrated.rows(), "bob")
        assert (secret.predict(rows) == plain.predict(calibrated.rows())).all()
        assert plain.audit(calibrated.rows()).fits
    plain.save(tmp_path / "model")
    assert nn.load(tmp_path / "model").bounds_ == plain.bounds_


def test_models_with_other_limits_are_not_evaluated_together():
    model, bounds = calibrated.deep_network()
    other = model.calibrate(calibrated.rows(), margin=64)
    assert other.limits != bounds.limits
    with mpc.Session() as s:
        kinds = {architecture(model.share(s, "alice", bounds=b)) for b in (bounds, bounds, other)}
        assert len(kinds) == 2
        two = [model.share(s, "alice", bounds=bounds) for _ in range(2)]
        for rows, inside in ((calibrated.rows(6), True), (calibrated.rows_beyond(6), False)):
            x = two[0].share_rows(rows, "bob")
            together = side_by_side(two, (2, 4))
            if inside:
                assert (together.predict(x) == model.predict(rows)).all()
            else:
                with pytest.raises(RangeError, match="left its limit"):
                    together.predict(x)


def test_parties_with_other_limits_notice():
    """A limit that one party reads elsewhere than the others gives no answer."""
    model, bounds = calibrated.deep_network()
    with mpc.Session() as s:
        secret = model.share(s, "alice", bounds=bounds)
        noted = []
        s.note = lambda *step: noted.append(step)
        secret(secret.share_rows(calibrated.rows(2), "bob"))
    assert ("bounds", bounds.limits, bounds.reaches) in noted


def random_network(rng):
    """Return layers whose values come near what the ring holds, for inputs of a random range."""
    features = int(rng.integers(1, 7))
    inputs, layers, n = float(2.0 ** rng.integers(0, 13)), [], features
    for _ in range(int(rng.integers(2, 6))):
        outputs = int(rng.integers(1, 7))
        weights = rng.normal(size=(n, outputs)) * 2.0 ** rng.integers(-6, 9)
        layers.append(Dense(weights, rng.normal(size=outputs) * 2.0 ** rng.integers(-4, 6)))
        layers += [[], [ReLU()], [ReLU()], [LeakyReLU(0.25)], [Sigmoid()]][rng.integers(5)]
        n = outputs
    layers.append(Dense(rng.normal(size=(n, 2)), np.zeros(2)))
    return layers, features, inputs


def expected_of(layers, bounds, X):
    """Return the outputs in real arithmetic, their largest error, and how a limit fares.

    That is the largest excess of a value over its limit, after taking off what rounding may add to it or
    take from it; None if that decides nothing.
    """
    x, off, excess = X, UNIT, -np.inf
    for layer, limit in zip(layers, bounds.limits, strict=True):
        if layer.parameters:
            layer = layer.with_parameters([np.rint(p / UNIT) * UNIT for p in layer.parameters])
            off *= np.abs(layer.weights).sum(axis=0).max()
        x = layer(x)
        off += 1e-4 if isinstance(layer, Sigmoid) else 4 * UNIT
        if limit is not None:
            over = np.abs(x).max() - limit
            if abs(over) <= off:
                return x, off, None
            excess = max(excess, over)
            if over > 0:
                return x, off, excess
    return x, off, excess


def test_random_networks_are_right_or_refused():
    """Against real arithmetic: beyond a limit always refused, inside always taken and right."""
    told = {"inside": 0, "beyond": 0, "not shared": 0, "too near to say": 0}
    with mpc.Session() as dealt, mpc.Session(provider=None) as alone:
        for seed in range(int(os.environ.get("SOTTO_RANDOM_PROOFS", "30"))):
            rng = np.random.default_rng(seed)
            layers, features, inputs = random_network(rng)
            limit = float(2.0 ** rng.integers(0, 14))
            bounds = bounds_of(layers, limit, inputs, (features,))
            model = Regressor(layers, features)
            model.output_scale_ = np.full(2, 1e9)  # precision is no matter here
            s = dealt if seed % 10 else alone
            try:
                secret = model.share(s, "alice", low=-inputs, high=inputs, bounds=bounds)
            except RangeError:
                told["not shared"] += 1
                continue
            for scale in 2.0 ** -np.arange(0, 16, 3.0):
                X = np.rint(rng.uniform(-inputs, inputs, (2, features)) * scale / UNIT) * UNIT
                x, off, excess = expected_of(layers, bounds, X)
                rows = secret.share_rows(X, "bob")
                if excess is None:
                    told["too near to say"] += 1
                elif excess > 0:
                    with pytest.raises(RangeError, match="left its limit"):
                        secret(rows)
                    told["beyond"] += 1
                else:
                    assert np.abs(secret(rows).reveal() - x).max() <= off, seed
                    told["inside"] += 1
    assert min(told["inside"], told["beyond"]) > 25, told


def test_a_clients_rows_where_a_feature_has_one_value_alone():
    """Features of different ranges, and one of none: each may come with the largest magnitude of all."""
    model = Regressor(
        [dense([2.0**14], [1.0]), ReLU(), eye()], 2, ([0.0, -1.0], [0.0, 1.0]), flat=False
    )
    bounds = nn.Bounds((None, 1.0, None), (256.0, None, 4.0), 2.0**40, 64)
    with mpc.Session() as s, pytest.raises(RangeError, match="can reach"):
        model.share(s, "alice", bounds=bounds)


@pytest.mark.filterwarnings("ignore::mpc.RangeWarning")
def test_a_bound_that_was_narrowed_on_trust(session):
    secret = shared(session, [eye(), ReLU(), eye()], 2.0**14, 8.0)
    rows = session.share([[100.0]], session.parties[1])
    session.range_policy.mode, kept = "warn", session.range_policy.mode
    try:
        with pytest.raises(RangeError):  # without a provider the product refuses it first
            secret(rows.with_bound(8.0))
    finally:
        session.range_policy.mode = kept


def test_a_kind_of_relu_of_ones_own_is_not_taken_for_relu():
    class Capped(ReLU):
        def __call__(self, x):
            return np.minimum(np.maximum(x, 0), 6)

        def bounds(self, low, high):
            return np.clip(low, 0, 6), np.clip(high, 0, 6)

    layers = [eye(), Capped(), eye()]
    with mpc.Session() as s:
        secret = shared(s, layers, 64.0, 64.0)
        assert answer(secret, [50.0]) == pytest.approx(6, abs=1e-3)
