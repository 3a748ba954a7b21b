"""Model files: what is written comes back, and what is not a whole model file is refused."""

import json

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Dense, Layer, ReLU
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.convolution import Convolution
from nn.layers.dropout import Dropout
from nn.layers.normalisation import BatchNorm
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape
from nn.models.predictors import Classifier, Regressor
from nn.models.saved_shares import load_shares, save_shares
from ring.errors import DataError, DtypeError


def network(outputs=3):
    random = np.random.default_rng(1)
    layers = [Dense(random.normal(size=(4, 5)), random.normal(size=5)), Sigmoid()]
    layers += [Dense(random.normal(size=(5, 2)), random.normal(size=2)), Tanh(), ReLU()]
    return [*layers, Dense(random.normal(size=(2, outputs)), random.normal(size=outputs))]


X = np.random.default_rng(2).normal(size=(20, 4))
SPAN = (np.full(4, -3.0), np.arange(4) + 3.0)


def changed(path, new, **entries):
    """Write a copy of an archive with other entries; None leaves one out."""
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays.update(entries)
    np.savez(new, **{name: array for name, array in arrays.items() if array is not None})
    return new


def header(path, **fields):
    with np.load(path) as archive:
        return np.array(json.dumps(json.loads(str(archive["sotto_model"])) | fields))


@pytest.mark.parametrize(
    "classes",
    [[3, 5, 9], [0.5, 1.5, 2.5], ["a", "b", "c"], np.array(["a", "b", "c"], object)],
    ids=["int", "float", "str", "object"],
)
@pytest.mark.parametrize("link", ["softmax", "one_vs_rest", "normalised"])
def test_classifiers_come_back(tmp_path, classes, link):
    model = Classifier(network(), classes, 4, SPAN, link=link)
    path = tmp_path / "model"
    model.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    again = nn.load(path)
    assert type(again) is Classifier and repr(again) == repr(model)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.input_range_, SPAN)


def test_a_classifier_without_probabilities_or_range(tmp_path):
    Classifier(network(), [0, 1, 2], 4, link=None).save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert again.link is None and again.input_range_ is None


@pytest.mark.parametrize(("outputs", "flat"), [(1, True), (1, False), (3, False)])
def test_regressors_come_back(tmp_path, outputs, flat):
    model = Regressor(network(outputs), 4, (0, 1), flat=flat)
    model.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert type(again) is Regressor
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.input_range_ == (0, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_networks_come_back(tmp_path, dtype):
    rows = X.astype(dtype)
    labels = np.where(X[:, 0] > 0, "yes", "no")
    model = nn.MLP((4, 6, 2), random_state=0)
    model.fit(rows, labels, epochs=3, loss="squared_error", validation=(rows, labels))
    model.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert type(again) is nn.MLP and again.layer_sizes == (4, 6, 2)
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))
    assert all(p.dtype == dtype for p in again.parameters)
    for name in ("input_range_", "loss_curve_", "validation_scores_"):
        assert getattr(again, name) == getattr(model, name)


def test_networks_for_images_come_back(tmp_path):
    rows, labels = np.abs(np.tile(X, 16)), np.where(X[:, 0] > 0, 1, 0)
    layers = [
        Reshape(8, 8, 1), Convolution.untrained(1, 3, kernel=3, padding="same"),
        BatchNorm.untrained(3), MaxPool(2), ReLU(), AveragePool((2, 1)), Dropout(0.25), Flatten(),
        Dense.untrained(24, 2),
    ]  # fmt: skip
    model = nn.Sequential(layers, n_features=64, random_state=0).fit(rows, labels, epochs=2)
    model.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert type(again) is nn.Sequential and again.input_range_ == model.input_range_
    np.testing.assert_allclose(again.predict_proba(rows), model.predict_proba(rows), rtol=1e-9)
    audit = model.audit(rows)
    assert audit.fits and 0 < audit.layers[-1].error_observed <= audit.error_bound
    outline = model.outline()
    assert repr(outline.layers) == repr(again.layers)
    assert not any(p.any() for p in outline.parameters)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path, part = tmp_path / "m.npz", tmp_path / "part.npz"
    Regressor(network(1), 4).save(path)
    whole = path.read_bytes()
    for length in [*range(64), *range(64, len(whole), 97), len(whole) - 1]:
        part.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"part\.npz"):
            nn.load(part)


def test_a_file_with_a_byte_changed_is_refused_or_harmless(tmp_path):
    path, other = tmp_path / "m.npz", tmp_path / "other.npz"
    model = Regressor(network(1), 4)
    model.save(path)
    whole = bytearray(path.read_bytes())
    for place in range(0, len(whole), 53):
        spoilt = whole.copy()
        spoilt[place] ^= 0xFF
        other.write_bytes(spoilt)
        try:
            again = nn.load(other)
        except DataError:
            continue
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_other_versions_and_kinds(tmp_path):
    path, other = tmp_path / "m.npz", tmp_path / "other.npz"
    Classifier(network(), [0, 1, 2], 4).save(path)
    for version in (0, 2, "1", None):
        with pytest.raises(DataError, match=f"version 1, got version {version!r}"):
            nn.load(changed(path, other, sotto_model=header(path, version=version)))
    for fields in (
        {"kind": "Forest"},
        {"kind": "MLP"},
        {"layers": [["Dense"], ["Softplus"], ["Dense"]]},
        {"layers": [["Dense"]]},
        {"layers": [["Dense"]] * 4},
        {"layers": [["ReLU", 3]]},
        {"layers": 3},
        {"n_features": 3},
        {"link": "identity"},
    ):
        with pytest.raises(DataError, match="damaged"):
            nn.load(changed(path, other, sotto_model=header(path, **fields)))
    for entries in (
        {"parameter_0": None},
        {"parameter_0": np.full((4, 5), np.nan)},
        {"parameter_0": np.zeros((4, 5), int)},
        {"parameter_0": np.zeros((3, 5))},
        {"classes": None},
        {"classes": np.array([2, 1, 0])},
        {"low": np.zeros(3), "high": np.ones(3)},
        {"sotto_model": np.array("[]")},
    ):
        with pytest.raises(DataError, match="damaged"):
            nn.load(changed(path, other, **entries))
    with pytest.raises(DataError, match="no entry sotto_model"):
        nn.load(changed(path, other, sotto_model=None))
    with pytest.raises(DataError, match="damaged"):
        nn.load(changed(path, other, sotto_model=np.array("{")))


def test_compressed_files_are_refused(tmp_path):
    # A few kilobytes of them could fill any memory.
    model = Regressor([Dense(np.zeros((4000, 100)), np.zeros(100))], 4000)
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as archive:
        np.savez_compressed(tmp_path / "small.npz", **archive)
    assert (tmp_path / "small.npz").stat().st_size < 1e5
    with pytest.raises(DataError, match="compressed"):
        nn.load(tmp_path / "small.npz")


def test_names_and_scales_come_back(tmp_path):
    model = Regressor(network(), 4)
    model.take_rows(X)
    model.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    model.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert again.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(again.output_scale_, model.output_scale_)
    np.testing.assert_allclose(model.output_scale_, model.predict(X).std(axis=0))
    path, other = tmp_path / "m.npz", tmp_path / "other.npz"
    for entries in (
        {"sotto_model": header(path, feature_names=["a", "b"])},
        {"output_scale": np.ones(2)},
        {"output_scale": np.array([1.0, np.nan, 1.0])},
    ):
        with pytest.raises(DataError, match="damaged"):
            nn.load(changed(path, other, **entries))


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path, other = tmp_path / "m.npz", tmp_path / "other.npz"
    Classifier(network(), [0, 1, 2], 4).save(path)
    with pytest.raises(DataError):
        nn.load(changed(path, other, classes=np.array([Trap(), Trap(), Trap()], object)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError):
        nn.load(tmp_path / "array.npy")
    (tmp_path / "text").write_text("not a model")
    with pytest.raises(DataError):
        nn.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "nowhere.npz")


def test_what_cannot_be_saved(tmp_path):
    class Softplus(ReLU):
        pass

    assert issubclass(Softplus, Layer)
    with pytest.raises(DtypeError, match="Softplus"):
        Regressor([*network(1), Softplus()], 4).save(tmp_path / "m.npz")
    with pytest.raises(DtypeError, match="classes"):
        Classifier(network(2), np.array([1, 2.5], object), 4).save(tmp_path / "m.npz")
    with pytest.raises(nn.models.trainable.NotFittedError):
        nn.MLP((4, 2)).save(tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [5, None, b"model.npz"])
def test_a_path_is_a_path(path):
    model = nn.MLP.from_parameters([[[1.0, 2.0]], [0.0, 0.0]])
    for use in (nn.load, model.save):
        with pytest.raises(mpc.DtypeError, match="path must be a path"):
            use(path)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", low=0, high=1)
        for use in (lambda: save_shares(secret, path), lambda: load_shares(s, path)):
            with pytest.raises(mpc.DtypeError, match="folder must be a path"):
                use()
