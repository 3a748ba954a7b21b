"""Files of shares: each party's own shares of a model.

``<folder>/<party>.npz`` is an archive without pickle, readable by its owner alone. It holds the shares
of one party only, and a header: version, party, fixed-point format, security, layers, whether the
model's owner allows scores to be revealed, and the digests of all parties' shares
(:mod:`nn.core.commitments`), which name the set of files that one :func:`save_shares` has written.
Shares of two sets do not add up to weights, so parties compare these names, which cover all that is
public, before they use the files. A party whose file was changed notices that its shares have another
digest.

Watched parties (``security="malicious"``) hold two rows of shares each, their own and that of the party
after them, and so does a file. They check each other before they write, and the two holders of each row
have the same digest of it when they load. What one of them computes on with is, as in any session,
compared with what the other one does.
"""

from __future__ import annotations

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
from mpc.core.watching import MALICIOUS, PARTIES, SECURITY, SEMI_HONEST, roles_of
from nn.core import archives
from nn.core.checks import check_session, local_path, named_inputs
from nn.core.commitments import DIGEST_BYTES, check_rows, commit, digest_of
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

__all__ = ["SharesFile", "load_shares", "model_digest", "save_shares", "shared_model"]

Arrays = dict[str, NDArray[Any]]
Words = NDArray[np.uint64]

VERSION = 4
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
    file, so that the call can be repeated. With ``security="malicious"`` a file has two parties' shares,
    and nothing is written before the parties have checked each other.

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
    AbortError
        With ``security="malicious"``, if a party has deviated.

    Notes
    -----
    2 rounds, 40 bytes to each other party; with ``security="malicious"`` 4 rounds, 112 bytes; of n
    parties 72 n - 104 bytes. If a party is lost in the last of them, files may be kept by some parties
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
        "security": session.security,
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
        header["bounds"] = asdict(model.bounds)
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
    paths = [root / f"{session.parties[party]}.npz" for party in session.residents]
    shares = {f"p{k}": p.shares for k, p in enumerate(parameters)}
    # As it is read again: whoever reads a file computes the digest from that.
    header = json.loads(json.dumps(header))
    salts, digests = commit(session, _public_digest(header, public), shares)
    header["digests"] = [digest.hex() for digest in digests]
    written: list[Path] = []
    try:
        problems = []
        for party, path in zip(session.residents, paths, strict=True):
            text = json.dumps({**header, "party": session.parties[party]}).encode()
            rows = [session.here.index(r) for r in roles_of(party, session.security, session.size)]
            arrays: Arrays = {name: words[rows] for name, words in shares.items()}
            arrays["header"], arrays["salts"] = np.frombuffer(text, np.uint8), salts[rows]
            problem = ""
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                archives.write(path, {**arrays, **public}, mode=0o600, replace=False)
                written.append(path)
            except FileExistsError:
                problem = f"{path} exists already and is not overwritten"
            except DataError as error:
                problem = str(error)
            except OSError as error:
                problem = f"folder {path.parent} cannot be made: {error.strerror}"
            problems.append(problem)
        _raise_together(session, problems)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return paths


def _raise_together(session: Session, problems: Sequence[str]) -> None:
    """Raise DataError at all parties if one has a problem; "" is none.

    Other processes learn only that there is one.
    """
    own = [np.array([bool(problem)], np.uint64) for problem in problems]
    told = session.tell(own, [(1,)] * session.size)
    session.check_each_other()
    failed = [name for name, words in zip(session.parties, told, strict=False) if words[0]]
    if failed:
        here = "; ".join(filter(None, problems))
        raise DataError(here or f"{', '.join(failed)} cannot write its file, so nobody keeps one")


def _public_digest(header: dict[str, Any], public: Arrays) -> bytes:
    """Return the digest of all that the files of a set have in common, but the digests of shares."""
    common = {name: value for name, value in header.items() if name not in ("party", "digests")}
    return digest_of(public, json.dumps(common, sort_keys=True).encode())


def load_shares(session: Session, folder: str | Path) -> SharedModel:
    """Load a model from files that :func:`save_shares` has written, every party from its own.

    All parties call it.

    Parameters
    ----------
    session : Session
        Of the parties, the fixed-point format and the security with which the files were written.
    folder : path

    Returns
    -------
    SharedModel or SharedRegressor

    Raises
    ------
    DataError
        If a file is missing, damaged, of another version, party, format or security, or if the parties'
        files are not of one set.
    AbortError
        With ``security="malicious"``, if a party has told the others different things, or has deviated
        before. One that computes on with other shares than those in its file is found like any other
        that deviates: before anything is revealed.

    Notes
    -----
    1 round, 24 bytes to each other party; with ``security="malicious"`` 2 rounds, 80 bytes; of
    n parties 40 (n - 1) bytes.

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
    root = local_path("folder", folder)
    files = [
        SharesFile(session.parties, session.format, party, root, session.security)
        for party in session.residents
    ]
    if not files:
        raise DataError("shares are loaded by parties, not in a plan")
    set_ids = session.tell([file.set_id for file in files])
    session.check_each_other()
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

    # Where several parties live, the first row of a file is that of its own party.
    own = 1 if len(files) > 1 else len(session.here)

    def stacked(k: int) -> Words:
        return np.concatenate([file.shares[k][:own] for file in files])

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


def model_digest(path: str | Path) -> str:
    """Return the name of a model in shares: a digest that is the same for the files of all parties.

    It is the SHA-256 of all that is public of the model, and of a salted digest of each party's shares.
    It tells nothing of the weights, and no other set of files has it: not of other weights, and not of
    the same weights saved at another time. So a model's owner can publish it.

    Parameters
    ----------
    path : path
        A party's file, as :func:`save_shares` has written it.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    DataError
        If there is no such file, or it is damaged, of another version, or changed since it was saved.

    Examples
    --------
    >>> import tempfile
    >>> import mpc, nn
    >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder, mpc.Session() as s:
    ...     alice, bob = nn.save_shares(model.share(s, owner="alice"), folder)
    ...     nn.model_digest(alice) == nn.model_digest(bob), len(nn.model_digest(bob))
    (True, 64)
    """
    path = local_path("path", path)
    try:
        header = json.loads(archives.read(path)["header"].tobytes()[:_LARGEST_HEADER])
        names, party = tuple(header["parties"]), header["party"]
        form = FixedPoint(header["frac_bits"], header["int_bits"])
        known = path.name == f"{party}.npz" and header["security"] in SECURITY
        few = header["security"] == MALICIOUS and len(names) < PARTIES
        if not known or party not in names or few:
            raise DataError(f"it is a file of {party}, security {header['security']}")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (LookupError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"{path} is no file of shares: {error}") from None
    file = SharesFile(names, form, names.index(party), path.parent, header["security"])
    return file.digest.hex()


class _OtherFileError(DataError):
    """A file that is not damaged, but of another version, party, format or security."""


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
    security : {"semi-honest", "malicious"}
        Of the session that is to use it, which must be that of the session that has saved it.

    Attributes
    ----------
    digest : bytes
        SHA-256 of all that the files of one set have in common: the public parts, and the digests of all
        parties' shares. Equal for all parties' files of one set, and for no others; it tells nothing
        of the shares, so it may be published as the model's name.
    digests : tuple of bytes
        The digest of each role's shares, in the parties' order. The party has compared those of its own
        `roles` with its shares.
    set_id : uint64 array of shape (3,)
        The first words of `digest`.
    header : dict
    roles : tuple of int
        The parties whose shares are in the file: with "malicious" its own and those of the next one.
    shares : list of uint64 array of shape (roles, ...)
        Shares of the parameters, in layer order.
    low, high, classes, inputs, bounds
        As of :class:`nn.shared.model.SharedModel`.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another version, party, format or security.
    """

    def __init__(
        self,
        parties: tuple[str, ...],
        form: FixedPoint,
        party: int,
        folder: Path,
        security: str = SEMI_HONEST,
    ) -> None:
        self.roles = roles_of(party, security, len(parties))
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
            self._check_expected(parties, form, party, security)
            shares = {name: arrays.pop(name) for name in list(arrays) if _SHARES.fullmatch(name)}
            salts = arrays.pop("salts")
            public = _public_digest(self.header, arrays)
            self.digests = tuple(bytes.fromhex(each) for each in self.header["digests"])
            if [len(each) for each in self.digests] != [DIGEST_BYTES] * len(parties):
                raise DataError("its digests are malformed")
            self.digest = digest_of({}, b"sotto model", public, *self.digests)
            self.set_id = np.frombuffer(self.digest[:24], "<u8").astype(np.uint64)
            self._read_public(arrays)
            self._read_shares(dict(shares))
            # At last: who has changed what the digests are of, and them too, is told what is wrong.
            check_rows(self.roles, salts, public, shares, self.digests)
        except (LookupError, TypeError, ValueError, SottoError) as error:
            if isinstance(error, _OtherFileError):
                raise
            raise DataError(f"{self.path} is damaged: {error}") from None

    def _read_header(self, data: NDArray[Any]) -> dict[str, Any]:
        header = json.loads(data.tobytes()[:_LARGEST_HEADER])
        if not isinstance(header, dict):
            raise DataError("its header is malformed")
        return header

    def _check_expected(
        self, parties: tuple[str, ...], form: FixedPoint, party: int, security: str
    ) -> None:
        expected = {
            "version": VERSION,
            "party": parties[party],
            "parties": list(parties),
            "frac_bits": form.frac_bits,
            "int_bits": form.int_bits,
            "security": security,
        }
        for name, value in expected.items():
            if self.header.get(name) != value:
                raise _OtherFileError(
                    f"{self.path}: {name} must be {value!r}, got {self.header.get(name)!r}"
                )

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
        if any(words.shape[:1] != (len(self.roles),) for words in self.shares):
            raise DataError(f"its shares must have {len(self.roles)} rows")
        layers = wired(layers_of(header["layers"], [words[0] for words in self.shares]), header)
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
