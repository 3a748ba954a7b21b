"""Files of shares: each party's own shares of a model.

``<folder>/<party>.npz`` is an archive without pickle, readable by its owner alone. It holds the shares
of one party only, and a header: version, party, fixed-point format, layers, whether the model's owner
allows scores to be revealed, and the id of the set of files that one :func:`save_shares` has written.
Shares of two sets do not add up to weights, so parties compare the ids, and a digest of all that is
public, before they use the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.ranges import LARGEST
from nn.core import archives
from nn.core.checks import check_session, local_path, named_inputs
from nn.core.labels import ordered_classes, plain_labels
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.inputs import InputScale, input_range
from nn.layers import Layer
from nn.layers.graph import run, wired, wiring_of
from nn.layers.layer import described, layers_of
from nn.losses.links import LINKS
from nn.shared.heads import Head, SharedHeads
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor
from ring import FixedPoint
from ring.errors import DataError, DtypeError, SottoError

__all__ = ["SharesFile", "load_shares", "save_shares", "shared_model"]

Arrays = dict[str, NDArray[Any]]
Words = NDArray[np.uint64]

VERSION = 2
# Of a model with bounds, which earlier versions would not check.
VERSION_WITH_BOUNDS = 3
_LARGEST_HEADER = 1 << 20
# Elements of a row, at most, in the input or any output of a layer.
_LARGEST_ROW = 1 << 28
_SHARES = re.compile("p[0-9]+")
_KINDS: dict[str, type[SharedModel]] = {
    "classifier": SharedModel, "regressor": SharedRegressor, "heads": SharedHeads,
}  # fmt: skip


def _output_shape(layers: Sequence[Layer], n_features: int) -> tuple[int, ...]:
    """Return the shape of an output row, after checking that the layers chain."""
    if not layers or not 0 < n_features <= _LARGEST_ROW:
        raise DataError(f"a model needs layers and features, got {len(layers)} and {n_features}")

    def step(_: int, layer: Layer, given: Any) -> tuple[int, ...]:
        shape = layer.output_shape(given)
        if not 0 < prod(shape) <= _LARGEST_ROW:
            raise DataError(f"{layer!r} gives rows of shape {shape}")
        return shape

    found: tuple[int, ...] = run(layers, (n_features,), step)
    return found


def save_shares(model: SharedModel, folder: str | Path) -> list[Path]:
    """Save the shares of a model, a file for each party that lives in this process.

    All parties call it. A file has mode 600; no file is overwritten. The file also says whether
    scores may be revealed. If one party cannot write its file, all parties raise and none keeps a
    file, so that the call can be repeated.

    Parameters
    ----------
    model : SharedModel
    folder : path
        Created if it does not exist.

    Returns
    -------
    list of Path
        The files of the parties that live here, ``<folder>/<party>.npz``.

    Raises
    ------
    DataError
        At all parties, if the file of one exists already or cannot be written; or if the model's
        output is not one score or value for each of its classes or outputs.
    DtypeError
        If a layer or the labels cannot be saved.

    Notes
    -----
    2 rounds, 32 bytes. If a party is lost in the second round, files may be kept by some parties
    only. :func:`load_shares` refuses them together with files of another set.

    Examples
    --------
    >>> import tempfile
    >>> import mpc, nn
    >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder, mpc.Session() as s:
    ...     paths = nn.save_shares(model.share(s, owner="alice"), folder)
    ...     print([path.name for path in paths], nn.load_shares(s, folder))
    ['alice.npz', 'bob.npz'] SharedModel([Dense(1, 2)], inputs=[0, 1], parties=alice, bob)
    """
    if not isinstance(model, SharedModel):
        raise DtypeError(f"model must be a model on shares, got {model!r}")
    session = model.session
    session.refuse_watched("saved shares", "reveal the model to its owner, who shares it again")
    shape = _output_shape(model.layers, model.n_features_in_)
    if shape != (len(model.classes_),):
        raise DataError(
            f"a model must have rows of {len(model.classes_)} outputs to be saved, got {shape}"
        )
    parameters = [p for layer in model.layers for p in layer.parameters]
    names = model.feature_names_in_
    header: dict[str, Any] = {
        "version": VERSION,
        "parties": list(session.parties),
        "frac_bits": session.format.frac_bits,
        "int_bits": session.format.int_bits,
        "kind": "classifier",
        "link": model.link,
        "scores": bool(model.scores),
        "n_features": model.n_features_in_,
        "feature_names": None if names is None else [str(name) for name in names],
        "layers": described(model.layers),
        **wiring_of(model.layers),
        "parameters": [[p.frac_bits, p.bound] for p in parameters],
    }
    public: Arrays = {"low": model.low, "high": model.high}
    public["classes"], header["classes_are_objects"] = plain_labels(model.classes_)
    if model.bounds is not None:
        header["version"], header["bounds"] = VERSION_WITH_BOUNDS, asdict(model.bounds)
    if isinstance(model, SharedRegressor):
        header["kind"], header["flat"] = "regressor", bool(model.flat)
    if isinstance(model, SharedHeads):
        header["kind"] = "heads"
        header["heads"] = [head.description() for head in model.heads]
    if model.inputs_ is not None:
        header["inputs"] = list(model.inputs_.items())
    if model.inputs is not None:
        public["middle"] = model.inputs.middle
        public["power"] = model.inputs.power.astype(np.int64)
    root = local_path("folder", folder)
    paths = [root / f"{session.parties[party]}.npz" for party in session.here]
    # The id of the set: the sum of random words of all parties.
    number = session.fresh_id()
    words = np.empty((len(session.here), 2), np.uint64)
    for row, party in zip(words, session.here, strict=True):
        session.streams[party].masks.fill(row, number)
    header["set"] = _agree(session, words, [_make_folder(path) for path in paths]).tobytes().hex()
    written: list[Path] = []
    try:
        problems = []
        for place, (party, path) in enumerate(zip(session.here, paths, strict=True)):
            text = json.dumps({**header, "party": session.parties[party]}).encode()
            arrays = {f"p{k}": p.shares[place] for k, p in enumerate(parameters)}
            arrays["header"] = np.frombuffer(text, np.uint8)
            problem = ""
            try:
                archives.write(path, {**arrays, **public}, mode=0o600, replace=False)
                written.append(path)
            except (DataError, FileExistsError) as error:
                problem = str(error) if isinstance(error, DataError) else _exists(path)
            problems.append(problem)
        _agree(session, np.empty((len(paths), 0), np.uint64), problems)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return paths


def _exists(path: Path) -> str:
    return f"{path} exists already and is not overwritten"


def _make_folder(path: Path) -> str:
    """Create the folder of a party's file; return why the file cannot be written, "" if it can."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"folder {path.parent} cannot be made: {error.strerror}"
    return _exists(path) if path.exists() else ""


def _agree(session: Session, words: Words, problems: Sequence[str]) -> Words:
    """Open the sum of the parties' words, or raise DataError at all parties if one has a problem.

    Parameters
    ----------
    session : Session
    words : uint64 array of shape (p, k)
        k words of each of the p parties that live here.
    problems : sequence of str
        Problem of each party that lives here, "" for none. Other processes learn only that there
        is one.

    Returns
    -------
    uint64 array of shape (k,)
    """
    flags = [
        1 << party if problem else 0 for party, problem in zip(session.here, problems, strict=True)
    ]
    own = np.concatenate([words, np.array(flags, np.uint64).reshape(-1, 1)], axis=1)
    opened = session.open((own, "sum"))[0]
    if not len(opened):
        return opened.reshape(-1)
    total = opened[0]
    failed = [name for party, name in enumerate(session.parties) if int(total[-1]) >> party & 1]
    if failed:
        here = "; ".join(filter(None, problems))
        raise DataError(here or f"{', '.join(failed)} cannot write its file, so nobody keeps one")
    return total[:-1]


def load_shares(session: Session, folder: str | Path) -> SharedModel:
    """Load a model from files that :func:`save_shares` has written, every party from its own.

    All parties call it.

    Parameters
    ----------
    session : Session
        Of the parties and the fixed-point format with which the files were written.
    folder : path

    Returns
    -------
    SharedModel or SharedRegressor

    Raises
    ------
    DataError
        If a file is missing, damaged, of another version, party or format, or if the parties'
        files are not of one set.

    Notes
    -----
    1 round, 24 bytes.

    Examples
    --------
    >>> import tempfile
    >>> import mpc, nn
    >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mpc.Session() as s:
    ...         _ = nn.save_shares(model.share(s, owner="alice", low=-4, high=4), folder)
    ...     with mpc.Session() as s:
    ...         secret_model = nn.load_shares(s, folder)
    ...         secret_model.predict(secret_model.share_rows([[2.0], [-3.0]], owner="bob"))
    array([0, 1])
    """
    check_session(session)
    session.refuse_watched("saved shares", "let the model's owner share it")
    root = local_path("folder", folder)
    files = [SharesFile(session.parties, session.format, party, root) for party in session.here]
    if not files:
        raise DataError("shares are loaded by parties, not in a plan")
    set_ids = session.tell([file.set_id for file in files])
    if not all(np.array_equal(each, files[0].set_id) for each in set_ids):
        raise DataError(
            f"the parties' files in {folder} are not of one set: they were saved at different times"
            " or changed since"
        )
    return shared_model(session, files)


def shared_model(session: Session, files: Sequence[SharesFile]) -> SharedModel:
    """Return the model in the files of the parties that live here.

    The caller has checked that the files of all parties are of one set.
    """
    first = files[0]
    header = first.header

    def stacked(k: int) -> NDArray[np.uint64]:
        return (
            files[0].shares[k][None] if len(files) == 1 else np.stack([f.shares[k] for f in files])
        )

    parameters = [
        SharedArray(session, stacked(k), frac_bits, bound)
        for k, (frac_bits, bound) in enumerate(header["parameters"])
    ]
    layers = wired(layers_of(header["layers"], parameters), header)
    common: dict[str, Any] = {"inputs": first.inputs, "bounds": first.bounds}
    if header["kind"] == "regressor":
        common["flat"] = header["flat"]
    else:
        common["link"], common["scores"] = header["link"], header["scores"]
    if header["kind"] == "heads":
        common["heads"] = [Head(*kept) for kept in header["heads"]]
    model = _KINDS[header["kind"]](
        session, layers, first.classes, header["n_features"], first.low, first.high, **common
    )
    if "inputs" in header:
        model.inputs_ = named_inputs(header["inputs"], header["n_features"])
    if header["feature_names"] is not None:
        model.feature_names_in_ = np.array(header["feature_names"], object)
    return model


class _OtherFileError(DataError):
    """A file that is not damaged, but of another version, party or format."""


class SharesFile:
    """One party's file of shares, read and checked.

    Parameters
    ----------
    parties : tuple of str
        The computing parties.
    form : FixedPoint
    party : int
        Number of the party whose file is read.
    folder : Path

    Attributes
    ----------
    set_id : uint64 array of shape (3,)
        The random id of the set, and a digest of all that its files have in common. Equal for all
        parties' files of one set, and for no others.
    header : dict
    shares : list of uint64 array
        The party's shares of the parameters, in layer order.
    low, high, classes, inputs, bounds
        As of :class:`nn.shared.model.SharedModel`.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another version, party or format.
    """

    def __init__(
        self, parties: tuple[str, ...], form: FixedPoint, party: int, folder: Path
    ) -> None:
        self.path = folder / f"{parties[party]}.npz"
        try:
            mode = self.path.stat().st_mode
            if mode & 0o077:
                raise DataError(
                    f"{self.path} must be readable by its owner alone, got mode {mode & 0o777:o}"
                )
            arrays = archives.read(self.path)
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist") from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            self.header = self._read_header(arrays.pop("header", np.empty(0, np.uint8)))
            self._check_expected(parties, form, party)
            shares = {name: arrays.pop(name) for name in list(arrays) if _SHARES.fullmatch(name)}
            self.set_id = self._set_id(arrays)
            self._read_public(arrays)
            self._read_shares(shares)
        except (LookupError, TypeError, ValueError, SottoError) as error:
            if isinstance(error, _OtherFileError):
                raise
            raise DataError(f"{self.path} is damaged: {error}") from None

    def _read_header(self, data: NDArray[Any]) -> dict[str, Any]:
        header = json.loads(data.tobytes()[:_LARGEST_HEADER])
        if not isinstance(header, dict) or len(bytes.fromhex(header["set"])) != 16:
            raise DataError("its header is malformed")
        return header

    def _check_expected(self, parties: tuple[str, ...], form: FixedPoint, party: int) -> None:
        expected = {
            "version": VERSION_WITH_BOUNDS if "bounds" in self.header else VERSION,
            "party": parties[party],
            "parties": list(parties),
            "frac_bits": form.frac_bits,
            "int_bits": form.int_bits,
        }
        for name, value in expected.items():
            if self.header.get(name) != value:
                raise _OtherFileError(
                    f"{self.path}: {name} must be {value!r}, got {self.header.get(name)!r}"
                )

    def _set_id(self, public: Arrays) -> NDArray[np.uint64]:
        common = {name: value for name, value in self.header.items() if name != "party"}
        digest = hashlib.blake2b(json.dumps(common, sort_keys=True).encode(), digest_size=8)
        for name in sorted(public):
            array = public[name]
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return np.frombuffer(bytes.fromhex(self.header["set"]) + digest.digest(), np.uint64)

    def _read_public(self, public: Arrays) -> None:
        header = self.header
        for name, kinds in (
            ("scores", (bool,)), ("classes_are_objects", (bool,)), ("n_features", (int,)),
            ("link", (str, type(None))), ("feature_names", (list, type(None))),
            ("parameters", (list,)), ("layers", (list,)),
        ):  # fmt: skip
            if type(header[name]) not in kinds:
                raise DataError(f"{name} is {header[name]!r}")
        regressor = header["kind"] in ("regressor", "heads")
        if header["kind"] not in _KINDS or (
            header["kind"] == "regressor" and type(header["flat"]) is not bool
        ):
            raise DataError(f"kind is {header['kind']!r}")
        if "inputs" in header:
            named_inputs(header["inputs"], header["n_features"])
        if header["link"] is not None and header["link"] not in LINKS:
            raise DataError(f"link is {header['link']!r}")
        features, names = header["n_features"], header["feature_names"]
        if names is not None and [type(name) for name in names] != [str] * features:
            raise DataError(f"feature_names are no names of {features} features")
        self.low, self.high = input_range(public.pop("low"), public.pop("high"), features)
        classes = public.pop("classes")
        if header["classes_are_objects"]:
            classes = classes.astype(object)
        self.classes = classes if regressor else ordered_classes(classes, len(classes))
        self.inputs = None
        if public:
            self.inputs = InputScale.checked(public.pop("middle"), public.pop("power"), self.low)
        if public:
            raise DataError(f"it must have no arrays {', '.join(sorted(public))}")

    def _read_shares(self, arrays: Arrays) -> None:
        header = self.header
        self.shares = [arrays.pop(f"p{k}") for k in range(len(header["parameters"]))]
        if arrays or any(a.dtype != np.uint64 for a in self.shares):
            raise DataError("its parameters and arrays of shares do not fit together")
        for frac_bits, bound in header["parameters"]:
            whole = type(frac_bits) is int and type(bound) is int
            if not whole or not 0 <= frac_bits < 63 or not 0 < bound <= LARGEST:
                raise DataError(
                    f"a parameter has {frac_bits} fractional bits and the bound {bound}"
                )
        layers = wired(layers_of(header["layers"], self.shares), header)
        shape = _output_shape(layers, header["n_features"])
        if shape != (len(self.classes),):
            raise DataError(f"{len(self.classes)} labels for outputs of shape {shape}")
        self.bounds = None
        if "bounds" in header:
            self.bounds = Bounds(**header["bounds"])
            self.bounds.check(layers, FixedPoint(header["frac_bits"], header["int_bits"]))
        if header["kind"] == "heads":
            heads = [Head(*kept) for kept in header["heads"]]
            if len({head.name for head in heads}) < len(heads) or not heads:
                raise DataError("its outputs have no names that differ")
            if any(head.stop > len(self.classes) for head in heads):
                raise DataError(f"an output lies beyond {len(self.classes)} entries")
        if self.inputs is not None and not self.inputs.fits(layers):
            raise DataError("it has a scale of the inputs, but no Dense as its first layer")
