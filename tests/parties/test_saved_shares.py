"""Shares in files: what was saved comes back, and files that do not fit are refused."""

import io
import json
import random
import stat
import zipfile

import numpy as np
import pytest

import mpc
import nn
from nn.core.commitments import _digest_of_row
from nn.layers.pooling import MaxPool
from nn.models.saved_shares import _public_digest
from tests.helpers.programs import (
    flower_network,
    flower_rows,
    network,
    picture_network,
    price_network,
    save_where_a_file_is,
    save_where_the_disk_is_full,
)

X = np.random.default_rng(5).random((40, 64))


def saved(folder):
    with mpc.Session() as session:
        return nn.save_shares(network().share(session, owner="alice", low=0, high=1), folder)


def test_saved_shares_are_one_partys_own(tmp_path):
    paths = saved(tmp_path / "model")
    assert [path.name for path in paths] == ["alice.npz", "bob.npz"]
    words = []
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with np.load(path, allow_pickle=False) as file:
            words.append(file["p0"])
            assert json.loads(file["header"].tobytes())["version"] == 4
    assert words[0].shape == (1, *network().parameters[0].shape)
    total = (words[0] + words[1])[0].view(np.int64) * 2.0**-16
    np.testing.assert_allclose(total, network().parameters[0], atol=2.0**-16)
    with mpc.Session() as session:
        model = nn.load_shares(session, tmp_path / "model")
        rows = model.share_rows(X, owner="bob")
        np.testing.assert_array_equal(model.predict(rows), network().predict(X))


MODELS = {
    "pictures": (picture_network(), X, {"low": 0, "high": 1, "scores": True}),
    "flowers": (flower_network(), flower_rows(), {"scores": True}),
    "flowers, a range": (
        flower_network(),
        flower_rows(),
        {"low": [-3e4, -1, -1], "high": [3e4, 2, 1]},
    ),
    "prices": (price_network(), flower_rows(), {}),
    "two prices": (price_network(2), flower_rows(), {}),
}


@pytest.mark.parametrize("names", [("alice", "bob"), ("ann", "ben", "cy")], ids=["two", "three"])
@pytest.mark.parametrize("model", MODELS)
def test_models_of_every_kind_come_back(tmp_path, names, model):
    plain, rows, options = MODELS[model]
    with mpc.Session(names) as session:
        shared = plain.share(session, owner=names[0], **options)
        nn.save_shares(shared, tmp_path)
    with mpc.Session(names) as session:
        again = nn.load_shares(session, tmp_path)
        assert type(again) is type(shared) and repr(again) == repr(shared)
        assert (again.link, again.scores, again.inputs) == (
            shared.link,
            shared.scores,
            shared.inputs,
        )
        assert again.classes_.dtype == shared.classes_.dtype
        np.testing.assert_array_equal(again.classes_, shared.classes_)
        np.testing.assert_array_equal([again.low, again.high], [shared.low, shared.high])
        np.testing.assert_array_equal(again.feature_names_in_, shared.feature_names_in_)
        assert (again.feature_names_in_ is not None) == model.startswith("flowers")
        secret = again.share_rows(rows, owner=names[-1])
        close = {"rtol": 0, "atol": 2e-3}
        if "prices" in model:
            assert again.flat == shared.flat
            np.testing.assert_allclose(again.predict(secret), plain.predict(rows), **close)
            return
        np.testing.assert_array_equal(again.predict(secret), plain.predict(rows))
        if shared.scores:
            scores = again.decision_function(secret)
            np.testing.assert_allclose(scores, plain.decision_function(rows), **close)
        else:
            with pytest.raises(mpc.RevealError, match="owner must allow"):
                again.decision_function(secret)


def test_a_model_trained_on_shares_comes_back(tmp_path):
    labels = (X.sum(axis=1) > 32).astype(int)
    with mpc.Session() as session:
        rows, targets = session.share(X, owner="bob"), session.share(nn.one_hot(labels), "alice")
        trained = nn.MLP((64, 8, 2), random_state=0).fit(rows, targets, epochs=1, batch_size=16)
        nn.save_shares(trained, tmp_path)
        revealed = trained.reveal()
    with mpc.Session() as session:
        again = nn.load_shares(session, tmp_path).reveal()
    for one, other in zip(again.parameters, revealed.parameters, strict=True):
        # Rounded once for each revealing.
        np.testing.assert_allclose(one, other, rtol=0, atol=2.0**-15)


def test_what_cannot_be_saved(tmp_path):
    class Softsign(MaxPool):
        pass

    with mpc.Session() as session:
        shared = picture_network().share(session, owner="alice", low=0, high=1)
        kept = shared.layers
        shared.layers = [Softsign() if isinstance(x, MaxPool) else x for x in kept]
        with pytest.raises(mpc.DtypeError, match="Softsign"):
            nn.save_shares(shared, tmp_path)
        shared.layers = kept[:-3]
        with pytest.raises(mpc.DataError, match=r"rows of 3 outputs to be saved, got \(24,\)"):
            nn.save_shares(shared, tmp_path)
    assert not list(tmp_path.iterdir())


def read(file):
    with np.load(file) as archive:
        arrays = dict(archive)
    return arrays, json.loads(arrays.pop("header").tobytes())


def digest_of_shares(arrays, header):
    """Return what a file of a semi-honest party says is the digest of its shares."""
    rows = {name: words for name, words in arrays.items() if name[1:].isdecimal()}
    beside = {n: a for n, a in arrays.items() if n not in rows and n != "salts" and a is not None}
    public, role = _public_digest(header, beside), header["parties"].index(header["party"])
    kept = {name: words for name, words in rows.items() if words is not None}
    salt = b"" if arrays["salts"] is None else arrays["salts"][0].tobytes()
    return _digest_of_row(role, salt, public, kept, 0).hex()


def changed(path, both, anew=True, **fields):
    """Change a party's file: arrays by name, or fields of the header; `both` parties' alike.

    With `anew` the digests in it are computed again, as whoever changes a file may do.
    """
    files = {
        name: read(path / f"{name}.npz") for name in (("alice", "bob") if both else ("alice",))
    }
    for arrays, header in files.values():
        for key, value in fields.items():
            if isinstance(value, np.ndarray) or key in arrays:
                shares = key[1:].isdecimal() and value is not None
                arrays[key] = value[None] if shares else value
            else:
                header[key] = value
    own = [digest_of_shares(*file) for file in files.values()]
    for name, (arrays, header) in files.items():
        if anew and "digests" not in fields:
            header["digests"][: len(own)] = own
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        kept = {key: array for key, array in arrays.items() if array is not None}
        np.savez(path / f"{name}.npz", **kept)


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": [["Dense"], ["Softsign"], ["Dense"]]},
        {"layers": [["Dense"], ["ReLU"]]},
        {"layers": [["Dense"], ["ReLU"], ["Dense"], ["Dense"]]},
        {"layers": [["Dense"], ["Flatten", 3], ["Dense"]]},
        {"layers": [["Dense"], ["MaxPool", [2, 2]], ["Dense"]]},
        {"layers": [["Dense"], ["Reshape", [1 << 40]], ["Dense"]]},
        {"layers": [["Dense"], "ReLU", ["Dense"]]},
        {"layers": 3},
        {"layers": []},
        {"n_features": 4},
        {"n_features": "3"},
        {"parameters": [[16, 5]] * 3},
        {"parameters": [[16, 5]] * 5},
        {"parameters": [[16, 5]] * 3 + [[64, 5]]},
        {"parameters": [[16, 5]] * 3 + [[16, 1 << 63]]},
        {"parameters": [[16, 5]] * 3 + [[16, 5.0]]},
        {"kind": "forest"},
        {"kind": "regressor"},
        {"link": "identity"},
        {"scores": 1},
        {"digests": ["ab", "cd"]},
        {"digests": ["ab" * 32]},
        {"digests": 3},
        {"security": "malicious"},
        {"salts": None},
        {"salts": np.zeros((2, 32), np.uint8)},
        {"salts": np.zeros((1, 32))},
        {"version": 1},
        {"p1": None},
        {"p1": np.zeros(6)},
        {"p1": np.zeros(7, np.uint64)},
        {"p1": np.zeros((6, 1), np.uint64)},
        {"p9": np.zeros(6, np.uint64)},
        {"more": np.zeros(6)},
        {"classes": None},
        {"classes": np.array(["b", "a", "c"])},
        {"classes": np.array(["a", "b"])},
        {"low": None},
        {"low": np.full(3, np.nan)},
        {"low": np.full(3, 1e9)},
        {"low": np.zeros(4)},
        {"middle": None},
        {"middle": np.zeros(4)},
        {"power": np.zeros(3)},
        {"power": np.full(3, 1 << 40)},
    ],
    ids=lambda fields: f"{next(iter(fields))}={str(next(iter(fields.values())))[:30]}",
)
def test_headers_and_arrays_that_contradict_one_another_are_refused(tmp_path, fields):
    with mpc.Session() as session:
        nn.save_shares(flower_network().share(session, owner="alice"), tmp_path)
    changed(tmp_path, True, **fields)
    with mpc.Session() as session, pytest.raises(mpc.DataError, match=r"alice\.npz"):
        nn.load_shares(session, tmp_path)


@pytest.mark.parametrize(
    "fields", [{"scores": True}, {"link": None}, {"classes": np.array(["a", "b", "c"])}],
    ids=["scores", "link", "classes"],
)  # fmt: skip
def test_one_party_alone_cannot_change_what_is_public(tmp_path, fields):
    with mpc.Session() as session:
        nn.save_shares(flower_network().share(session, owner="alice"), tmp_path)
    changed(tmp_path, False, **fields)
    with mpc.Session() as session, pytest.raises(mpc.DataError, match="not of one set"):
        nn.load_shares(session, tmp_path)


def test_shares_that_were_changed_are_noticed_by_their_party(tmp_path):
    alice, _ = saved(tmp_path)
    arrays, _ = read(alice)
    arrays["p1"][0, 3] ^= np.uint64(1)
    changed(tmp_path, False, anew=False, p1=arrays["p1"][0])
    with mpc.Session() as session, pytest.raises(mpc.DataError, match=r"alice\.npz.*changed since"):
        nn.load_shares(session, tmp_path)
    with pytest.raises(mpc.DataError, match="changed since"):
        nn.model_digest(alice)
    changed(tmp_path, False, p1=arrays["p1"][0])
    with mpc.Session() as session, pytest.raises(mpc.DataError, match="not of one set"):
        nn.load_shares(session, tmp_path)


def test_a_models_name_is_that_of_one_set(tmp_path):
    names = []
    for number in range(2):
        names += [nn.model_digest(path) for path in saved(tmp_path / str(number))]
    assert names[0] == names[1] != names[2] == names[3]
    digests = [read(path)[1]["digests"] for path in tmp_path.glob("*/*.npz")]
    assert len({digest for each in digests for digest in each}) == 4


@pytest.mark.parametrize(
    ("name", "match"), [("cy", "does not exist"), ("bob", "is no file of shares")]
)
def test_what_has_no_name(tmp_path, name, match):
    alice, _ = saved(tmp_path / "one")
    (tmp_path / "bob.npz").write_bytes(alice.read_bytes())
    with pytest.raises(mpc.DataError, match=match):
        nn.model_digest(tmp_path / f"{name}.npz")


def test_any_damage_is_an_error_about_the_file(tmp_path):
    alice, _ = saved(tmp_path)
    whole = alice.read_bytes()
    with np.load(alice) as archive:
        words = archive["p0"].nbytes
    rng = random.Random(7)
    refused = 0
    for number in range(300):
        data = bytearray(whole)
        # Changed shares alone look like any others, but for the archive's checksum.
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        alice.write_bytes(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
        with mpc.Session() as session:
            try:
                nn.load_shares(session, tmp_path)
            except mpc.DataError as error:
                refused += "alice.npz" in str(error)
    assert words > 10_000 and refused > 280


def test_no_entry_claims_more_than_the_file_holds(tmp_path):
    alice, _ = saved(tmp_path)
    with np.load(alice) as archive:
        arrays = dict(archive)
    np.savez_compressed(alice, **{**arrays, "p0": np.zeros((1 << 12, 1 << 12), np.uint64)})
    assert alice.stat().st_size < 1 << 20
    with mpc.Session() as session, pytest.raises(mpc.DataError, match="compressed"):
        nn.load_shares(session, tmp_path)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<u8", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    )
    with zipfile.ZipFile(alice, "w") as archive:
        archive.writestr("p0.npy", file.getvalue())
    with mpc.Session() as session, pytest.raises(mpc.DataError, match="another size"):
        nn.load_shares(session, tmp_path)


def test_files_that_do_not_fit_are_refused(tmp_path):
    alice, bob = saved(tmp_path / "one")
    saved(tmp_path / "two")
    with pytest.raises(mpc.DataError, match="exists already"):
        saved(tmp_path / "one")

    def load(**options):
        with mpc.Session(**options) as session:
            nn.load_shares(session, tmp_path / "one")

    with pytest.raises(mpc.DataError, match="frac_bits must be 12, got 16"):
        load(frac_bits=12)
    kept = bob.read_bytes()
    bob.write_bytes((tmp_path / "two" / "bob.npz").read_bytes())
    with pytest.raises(mpc.DataError, match="not of one set"):
        load()
    bob.write_bytes(alice.read_bytes())
    with pytest.raises(mpc.DataError, match="party must be 'bob', got 'alice'"):
        load()
    bob.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(mpc.DataError, match=r"bob\.npz is damaged"):
        load()
    bob.chmod(0o644)
    with pytest.raises(mpc.DataError, match="mode 644"):
        load()
    bob.unlink()
    with pytest.raises(mpc.DataError, match="does not exist"):
        load()


def test_a_full_disk_is_told_to_all_leaves_nothing_and_can_be_tried_again(tmp_path):
    inputs = {name: (tmp_path, name == "bob") for name in ("alice", "bob")}
    found = mpc.launch(save_where_the_disk_is_full, inputs=inputs)
    (alice, _), (bob, labels) = found.values()
    path = tmp_path / "bob" / "bob.npz"
    assert bob == [f"{path} cannot be written: File too large", [], ["bob.npz"]]
    assert alice == ["bob cannot write its file, so nobody keeps one", [], ["alice.npz"]]
    np.testing.assert_array_equal(labels, network().predict(np.ones((1, 64))))


def test_a_file_that_is_in_the_way_of_one_stops_all(tmp_path):
    found = mpc.launch(save_where_a_file_is, inputs=dict.fromkeys(("alice", "bob"), (tmp_path,)))
    told, files = found["alice"]
    assert told.endswith("alice.npz exists already and is not overwritten")
    assert (tmp_path / "alice" / "alice.npz").read_text() == "mine" and files == ["alice.npz"]
    assert found["bob"] == ("alice cannot write its file, so nobody keeps one", [])


def test_saving_costs_what_is_said(tmp_path):
    with mpc.Session() as session:
        shared = network().share(session, owner="alice", low=0, high=1)
        before = session.cost()
        nn.save_shares(shared, tmp_path)
        spent = session.cost() - before
    assert (spent.rounds, spent.bytes_sent_per_party) == (2, 40)
    assert "2 rounds, 40 bytes" in nn.save_shares.__doc__


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(mpc.DataError, match="folder .*file/model cannot be made: Not a directory"):
        saved(tmp_path / "file" / "model")


def test_a_plain_model_names_the_file_that_cannot_be_written(tmp_path):
    with pytest.raises(mpc.DataError, match=r"none/model\.npz cannot be written: No such file"):
        network().save(tmp_path / "none" / "model.npz")
