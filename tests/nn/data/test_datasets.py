"""Data sets: the cache of MNIST, idx files whole and damaged, digits, one-hot targets."""

import gzip
import os
import shutil
import socket
import warnings
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nn
from nn.data import datasets
from nn.data.datasets import DataUnavailableError
from ring.errors import ArgumentError, DataError, DtypeError, RangeError, ShapeError

MNIST = Path(__file__).resolve().parents[3].parent / "shared" / "mnist"
needs_mnist = pytest.mark.skipif(
    not MNIST.is_dir(), reason="needs the idx files of MNIST in ../shared"
)
PARTS = {
    "train-images-idx3-ubyte.gz": "train images",
    "train-labels-idx1-ubyte.gz": "train labels",
    "t10k-images-idx3-ubyte.gz": "test images",
    "t10k-labels-idx1-ubyte.gz": "test labels",
}


def idx_bytes(array):
    header = [0x800 + array.ndim, *array.shape]
    return np.array(header, dtype=">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder, side=28, train=12, test=5):
    """Write four idx files of a few images; return the arrays in them."""
    random = np.random.default_rng(0)
    arrays = [
        random.integers(256, size=(train, side, side)),
        random.integers(10, size=train),
        random.integers(256, size=(test, side, side)),
        random.integers(10, size=test),
    ]
    for name, array in zip(PARTS, arrays, strict=True):
        (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
    return arrays


def same(split, other):
    return all(np.array_equal(a, b) for a, b in zip(split, other, strict=True))


@pytest.fixture
def openml(monkeypatch):
    """A small MNIST where scikit-learn would give the real one; counts how often it is asked."""
    rows, train = 70, 60
    random = np.random.default_rng(0)
    source = {
        "pixels": random.integers(256, size=(rows, 784)).astype(np.float64),
        "labels": np.array([str(i % 10) for i in range(rows)], dtype=object),
        "calls": [],
        "error": None,
    }

    def fetch(*args, **options):
        source["calls"].append((args, options, socket.getdefaulttimeout()))
        warnings.warn("a network error occurred, retrying", stacklevel=1)
        if source["error"] is not None:
            raise source["error"]
        return source["pixels"], source["labels"]

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.setattr(datasets, "_MNIST_ROWS", rows)
    monkeypatch.setattr(datasets, "_MNIST_TRAIN_ROWS", train)
    return source


def only_cache(home):
    (cache,) = home.glob("*.npz")
    return cache


class TestLoadMnist:
    def test_first_call_parses_and_later_calls_read_the_cache(self, openml, tmp_path, capsys):
        first = nn.load_mnist(tmp_path)
        assert [array.shape for array in first] == [(60, 784), (10, 784), (60,), (10,)]
        np.testing.assert_allclose(first[0], openml["pixels"][:60] / 255, rtol=1e-6)
        np.testing.assert_allclose(first[1], openml["pixels"][60:] / 255, rtol=1e-6)
        assert first[2].tolist() == [i % 10 for i in range(60)]
        assert first[3].tolist() == list(range(10))
        assert [array.dtype for array in first] == [np.float32, np.float32, np.int64, np.int64]
        output = capsys.readouterr()
        assert output.out == ""
        assert "about a minute and 1 GB" in output.err

        assert same(nn.load_mnist(tmp_path), first)
        assert len(openml["calls"]) == 1
        assert capsys.readouterr() == ("", "")
        assert [path.name for path in tmp_path.iterdir()] == [only_cache(tmp_path).name]

    def test_asks_openml_for_what_needs_no_pandas(self, openml, tmp_path):
        nn.load_mnist(tmp_path)
        ((args, options, timeout),) = openml["calls"]
        assert args == ("mnist_784",)
        assert options["version"] == 1
        assert options["parser"] == "liac-arff"
        assert options["as_frame"] is False
        assert options["data_home"] == str(tmp_path)
        assert timeout == 30
        assert socket.getdefaulttimeout() is None

    def test_cache_is_small_and_of_bytes(self, openml, tmp_path):
        nn.load_mnist(tmp_path)
        with np.load(only_cache(tmp_path), allow_pickle=False) as content:
            assert {name: content[name].dtype for name in content} == {
                "images": np.uint8,
                "labels": np.uint8,
            }

    def test_data_home_from_the_environment(self, openml, tmp_path, monkeypatch):
        monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "data"))
        first = nn.load_mnist()
        assert only_cache(tmp_path / "data").is_file()
        assert same(nn.load_mnist(tmp_path / "data"), first)
        assert len(openml["calls"]) == 1

    def test_data_home_in_the_home_folder(self, openml, tmp_path, monkeypatch):
        monkeypatch.delenv("SCIKIT_LEARN_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        nn.load_mnist()
        assert only_cache(tmp_path / "scikit_learn_data").is_file()
        nn.load_mnist("~/scikit_learn_data")
        assert len(openml["calls"]) == 1

    def test_float64(self, openml, tmp_path):
        X = nn.load_mnist(tmp_path, dtype=np.float64)[0]
        assert X.dtype == np.float64
        np.testing.assert_array_equal(X, openml["pixels"][:60] / 255)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda cache: cache.write_bytes(b""),
            lambda cache: cache.write_bytes(b"not a zip file"),
            lambda cache: cache.write_bytes(cache.read_bytes()[:-100]),
            lambda cache: cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2]),
            # A byte in the middle of the compressed pixels: the checksum finds it.
            lambda cache: cache.write_bytes(flip(cache.read_bytes(), cache.stat().st_size // 2)),
            lambda cache: (
                np.save(cache.with_suffix(".npy"), 1)
                or os.replace(cache.with_suffix(".npy"), cache)
            ),
            lambda cache: np.savez(cache, images=np.zeros((70, 784), np.uint8)),
            lambda cache: np.savez(cache, images=np.zeros((70, 784)), labels=np.zeros(70)),
            lambda cache: np.savez(
                cache, images=np.zeros((69, 784), np.uint8), labels=np.zeros(69, np.uint8)
            ),
            lambda cache: np.savez(
                cache, images=np.zeros((70, 784), np.uint8), labels=np.full(70, 10, np.uint8)
            ),
            lambda cache: np.savez(
                cache, images=np.array([{}], dtype=object), labels=np.zeros(70, np.uint8)
            ),
        ],
        ids=[
            "empty",
            "text",
            "end",
            "half",
            "byte",
            "npy",
            "part",
            "float",
            "rows",
            "ten",
            "pickle",
        ],
    )
    def test_a_damaged_cache_is_made_again(self, damage, openml, tmp_path, capsys):
        first = nn.load_mnist(tmp_path)
        damage(only_cache(tmp_path))
        capsys.readouterr()
        assert same(nn.load_mnist(tmp_path), first)
        assert len(openml["calls"]) == 2
        assert "mnist_784_sotto.npz is damaged" in capsys.readouterr().err
        assert same(nn.load_mnist(tmp_path), first)
        assert len(openml["calls"]) == 2

    def test_a_cache_that_cannot_be_written_is_not_fatal(
        self, openml, tmp_path, capsys, monkeypatch
    ):
        def refuse(*args, **kwargs):
            raise OSError("no space left")

        monkeypatch.setattr(datasets.np, "savez_compressed", refuse)
        assert nn.load_mnist(tmp_path)[3].tolist() == list(range(10))
        assert "could not be kept" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "error", [URLError("no route"), TimeoutError("timed out"), ConnectionResetError("gone")]
    )
    def test_no_network_and_no_cache(self, error, openml, tmp_path):
        openml["error"] = error
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataUnavailableError) as caught:
                nn.load_mnist(tmp_path)
        message = str(caught.value)
        assert message.startswith(
            f"MNIST is not in {tmp_path} and cannot be fetched from openml.org"
        )
        assert "\n" not in message
        assert isinstance(caught.value, DataError)
        assert socket.getdefaulttimeout() is None

    def test_what_openml_gives_is_checked(self, openml, tmp_path):
        openml["pixels"] = openml["pixels"][:, :-1]
        with pytest.raises(DataError, match=r"70 images of 784 pixels .* \(70, 783\)"):
            nn.load_mnist(tmp_path)
        openml["pixels"] = np.full((70, 784), 0.5)
        with pytest.raises(DataError, match=r"pixels must be integers from 0 to 255, got 0\.5"):
            nn.load_mnist(tmp_path)
        openml["pixels"] = np.zeros((70, 784))
        openml["labels"] = np.array(["x"] * 70)
        with pytest.raises(DataError, match="labels must be numbers"):
            nn.load_mnist(tmp_path)
        openml["error"] = ValueError("bad row")
        with pytest.raises(DataError, match=r"cannot be parsed: bad row") as caught:
            nn.load_mnist(tmp_path)
        assert not isinstance(caught.value, DataUnavailableError)
        assert list(tmp_path.glob("*.npz")) == []

    def test_a_folder_of_idx_files(self, openml, tmp_path):
        arrays = write_idx(tmp_path)
        split = nn.load_mnist(tmp_path)
        np.testing.assert_allclose(split[0], arrays[0].reshape(12, 784) / 255, rtol=1e-6)
        assert split[3].tolist() == arrays[3].tolist()
        assert openml["calls"] == []

    def test_idx_files_of_something_else(self, tmp_path):
        write_idx(tmp_path, side=8)
        with pytest.raises(DataError, match="must hold images of 28x28 pixels, got 64 pixels"):
            nn.load_mnist(tmp_path)
        write_idx(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(idx_bytes(np.array([0, 1, 2, 3, 11])))
        )
        with pytest.raises(DataError, match="must hold the digits 0 to 9 as labels, got 11"):
            nn.load_mnist(tmp_path)

    def test_data_home_must_be_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="data_home must be a folder, got the file"):
            nn.load_mnist(tmp_path / "file")

    @needs_mnist
    def test_the_real_mnist_through_the_cache_and_from_idx_files(self, tmp_path, monkeypatch):
        split = nn.load_mnist(MNIST)
        assert [array.shape for array in split] == [(60000, 784), (10000, 784), (60000,), (10000,)]
        assert split[2][:5].tolist() == [5, 0, 4, 1, 9]
        assert split[3][:5].tolist() == [7, 2, 1, 0, 4]
        assert np.bincount(split[3]).tolist() == [
            980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
        ]  # fmt: skip
        assert (split[0].min(), split[0].max()) == (0, 1)
        assert split[0].mean() == pytest.approx(0.1307, abs=5e-5)
        assert split[1].mean() == pytest.approx(0.1325, abs=5e-5)

        pixels = np.rint(np.concatenate(split[:2]) * 255).astype(np.uint8)
        digits = np.concatenate(split[2:]).astype(str).astype(object)
        monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: (pixels, digits))
        assert same(nn.load_mnist(tmp_path), split)
        assert only_cache(tmp_path).stat().st_size < 20e6
        # From the cache: nothing is fetched, nor parsed, which takes most of a minute.
        monkeypatch.setattr("sklearn.datasets.fetch_openml", None)
        assert same(nn.load_mnist(tmp_path), split)


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


class TestLoadIdx:
    def test_values(self, tmp_path):
        arrays = write_idx(tmp_path, side=3)
        split = nn.load_idx(tmp_path, dtype=np.float64)
        np.testing.assert_array_equal(split[0], arrays[0].reshape(12, 9) / 255)
        np.testing.assert_array_equal(split[1], arrays[2].reshape(5, 9) / 255)
        assert split[2].tolist() == arrays[1].tolist()
        assert split[3].tolist() == arrays[3].tolist()
        assert split[2].dtype == np.int64

    def test_unpacked_files(self, tmp_path):
        write_idx(tmp_path)
        packed = nn.load_idx(tmp_path)
        for name in PARTS:
            path = tmp_path / name
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        assert same(nn.load_idx(tmp_path), packed)
        assert same(nn.load_mnist(tmp_path), packed)

    @pytest.mark.parametrize("name", PARTS)
    def test_a_missing_file_is_named(self, name, tmp_path):
        write_idx(tmp_path)
        (tmp_path / name).unlink()
        for load in (nn.load_idx, nn.load_mnist):
            with pytest.raises(DataError, match=f"{name} is missing"):
                load(tmp_path)

    @pytest.mark.parametrize("name", PARTS)
    def test_damage_is_named(self, name, tmp_path):
        arrays = dict(zip(PARTS, write_idx(tmp_path), strict=True))
        path, good = tmp_path / name, idx_bytes(arrays[name])
        dimensions = arrays[name].ndim
        size = arrays[name].size

        def refused(content, message, pack=gzip.compress):
            path.write_bytes(pack(content))
            with pytest.raises(DataError, match=message) as caught:
                nn.load_idx(tmp_path)
            assert name in str(caught.value)

        def header(*numbers):
            return np.array(numbers, dtype=">u4").tobytes()

        refused(b"", f"a header of {4 + 4 * dimensions} bytes, got 0 bytes")
        refused(good[:7], f"a header of {4 + 4 * dimensions} bytes, got 7 bytes")
        refused(header(1234) + good[4:], f"magic number {0x800 + dimensions}, got 1234")
        refused(good[:-1], f"must hold {size} bytes .* got {size - 1}$")
        refused(good + b"\0", f"must hold {size} bytes .* got more")
        refused(good[:4] + header(0) + good[8:], r"sizes of at least 1 .* got \[0")
        huge = header(0x800 + dimensions, *[2**32 - 1] * dimensions)
        refused(huge, r"at most 2147483648 bytes in all, got \[4294967295")
        refused(good, "cannot be read", pack=lambda content: b"no gzip" + content)
        refused(good, "cannot be read", pack=lambda content: gzip.compress(content)[:-12])
        refused(
            good,
            "cannot be read",
            pack=lambda content: flip(gzip.compress(content), len(gzip.compress(content)) - 6),
        )

    def test_files_that_do_not_fit_together(self, tmp_path):
        arrays = write_idx(tmp_path)
        labels = tmp_path / "train-labels-idx1-ubyte.gz"
        labels.write_bytes(gzip.compress(idx_bytes(arrays[1][:-1])))
        with pytest.raises(DataError, match=r"train-labels.*for each of the 12 images .* got 11"):
            nn.load_idx(tmp_path)
        write_idx(tmp_path)
        images = tmp_path / "t10k-images-idx3-ubyte.gz"
        images.write_bytes(gzip.compress(idx_bytes(np.zeros((5, 28, 27)))))
        with pytest.raises(DataError, match=r"of \(28, 28\) pixels .* got \(28, 27\)"):
            nn.load_idx(tmp_path)

    @needs_mnist
    def test_real_files_cut_short(self, tmp_path):
        for name in PARTS:
            shutil.copyfile(MNIST / name, tmp_path / name)
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz cannot be read"):
            nn.load_mnist(tmp_path)


class TestDigits:
    def test_split(self):
        X_train, X_test, y_train, y_test = nn.load_digits_8x8()
        assert (X_train.shape, X_test.shape) == ((1347, 64), (450, 64))
        assert (X_train.min(), X_train.max()) == (0, 1)
        assert X_train.dtype == X_test.dtype == np.float32
        assert y_train.dtype == y_test.dtype == np.int64
        everything = np.bincount(y_train) + np.bincount(y_test)
        # Stratified: each digit's share of the test rows is a quarter, to within one row.
        assert abs(np.bincount(y_test) - everything / 4).max() <= 1

    def test_is_what_scikit_learn_has(self):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, digits = load_digits(return_X_y=True)
        wanted = train_test_split(
            pixels / 16, digits, test_size=0.3, random_state=5, stratify=digits
        )
        assert same(nn.load_digits_8x8(test_size=0.3, random_state=5, dtype=np.float64), wanted)

    def test_seeds(self):
        first = nn.load_digits_8x8()
        assert same(nn.load_digits_8x8(random_state=0), first)
        assert not same(nn.load_digits_8x8(random_state=1), first)
        assert not same(
            nn.load_digits_8x8(random_state=None), nn.load_digits_8x8(random_state=None)
        )
        for make in (np.random.default_rng, np.random.RandomState):
            a, b = (nn.load_digits_8x8(random_state=make(3)) for _ in range(2))
            assert same(a, b)

    def test_a_number_of_images(self):
        assert len(nn.load_digits_8x8(test_size=100)[1]) == 100

    def test_bad_arguments(self):
        for size in (0, 1.5, -0.1, 1797, 5, "half"):
            with pytest.raises(ArgumentError, match=f"test_size must be .* got {size!r}"):
                nn.load_digits_8x8(test_size=size)
        with pytest.raises(ArgumentError, match="random_state must be at least 0, got -1"):
            nn.load_digits_8x8(random_state=-1)
        with pytest.raises(DtypeError, match="random_state must be"):
            nn.load_digits_8x8(random_state="0")
        for load in (
            nn.load_digits_8x8,
            nn.load_mnist,
            lambda dtype: nn.load_idx(".", dtype=dtype),
        ):
            with pytest.raises(DtypeError, match="dtype must be float32 or float64, got uint8"):
                load(dtype=np.uint8)


class TestOneHot:
    @given(st.lists(st.integers(0, 20), min_size=1), st.integers(0, 5))
    def test_ones_stand_at_the_labels(self, labels, extra):
        classes = max(labels) + 1 + extra
        encoded = nn.one_hot(labels, classes)
        assert encoded.tolist() == [[int(c == label) for c in range(classes)] for label in labels]
        assert encoded.dtype == np.int64

    def test_classes_by_default(self):
        assert nn.one_hot([1, 0, 3]).shape == (3, 4)
        assert nn.one_hot(np.array([2], dtype=np.uint8)).tolist() == [[0, 0, 1]]

    def test_no_labels(self):
        assert nn.one_hot([], 3).shape == (0, 3)
        with pytest.raises(ShapeError, match="y must have at least one label when classes is not"):
            nn.one_hot([])

    @pytest.mark.parametrize(
        ("y", "classes", "error", "message"),
        [
            ([0.0, 1.0], None, DtypeError, "y must hold integers, got float64"),
            (["1"], None, DtypeError, "y must hold integers, got <U1"),
            ([True, False], None, DtypeError, "y must hold integers, got bool"),
            ([[0, 1]], None, ShapeError, r"y must have one axis .* got shape \(1, 2\)"),
            (3, None, ShapeError, r"y must have one axis .* got shape \(\)"),
            ([0, 3], 3, RangeError, "y must be from 0 to 2, got 3 in row 1"),
            ([0, -1], 3, RangeError, "y must be from 0 to 2, got -1 in row 1"),
            ([0, -1], None, RangeError, "y must be 0 or more, got -1 in row 1"),
            ([0], 0, ArgumentError, "classes must be at least 1, got 0"),
            ([0], 2.0, DtypeError, "classes must be an integer, got 2.0"),
        ],
    )
    def test_bad_input(self, y, classes, error, message):
        with pytest.raises(error, match=message):
            nn.one_hot(y, classes)
