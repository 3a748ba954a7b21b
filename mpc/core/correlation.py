"""Correlated randomness: its parts, and how each party gets its shares.

A correlation is an ordered list of parts. First come the masks, uniform arrays: every party expands
its own share of them from a key that it shares with the provider. Then come the corrected parts,
arrays that are functions of the masks: all parties but the last expand their shares from another
key, see :mod:`mpc.core.keys`, and the provider sends the last party its share, the correction. A
correlation object carries shapes and ids, never data. Its id says where in the streams its masks are.

Names of classes derived from Correlation are what requests to the provider call them: they are part
of the wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from math import prod
from operator import attrgetter
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ShapeError
from mpc.core.sizes import check_size, shape_of_view
from ring.streams import OWN_IDS

__all__ = [
    "INPUT_IDS",
    "LANES",
    "Algebra",
    "Correlation",
    "Layout",
    "MaskRef",
    "MaskSource",
    "Opening",
    "Part",
    "View",
    "apply_views",
    "check_dealt",
    "chosen_rows",
    "combine",
    "correlation_classes",
    "cut",
    "with_runs",
]

Words = NDArray[np.uint64]
Opening = Literal["sum", "xor"] | int
"""How a message is opened: add or XOR all parties' shares, or take the words of one party (an int)."""
Algebra = Literal["sum", "sum32", "sum16", "xor"]
"""How shares combine: sums of 64-bit words, sums of lanes of 32 or 16 bits (ring.bits), or XOR."""
LANES: tuple[Algebra, ...] = ("sum", "sum32", "sum16")
"""The algebra of lanes, by fold."""

INPUT_IDS = 1 << 50
"""Ids of masks of inputs of watched parties: party j's begin at (j + 1) times this, above all others."""
# How many ids before a program an input counts as its own.
_NEAR = 16

# One step from a masked tensor to a view of it: ("transpose", axes), ("reshape", shape),
# ("index", key), with the key as NumPy takes it, or ("windows", Windows) of images.
View = tuple[str, object]


@dataclass(frozen=True)
class Part:
    """One array of a correlation: its shape in words, and how shares add or XOR up to it."""

    shape: tuple[int, ...]
    algebra: Algebra = "sum"

    @cached_property
    def size(self) -> int:
        """The number of words."""
        return prod(self.shape)


_LANE_DTYPES = {"sum32": np.uint32, "sum16": np.uint16}


def combine(algebra: Algebra, x: Words, y: Words) -> None:
    """Add (XOR) the words `y` to `x` in place; both are contiguous."""
    if algebra == "xor":
        np.bitwise_xor(x, y, out=x)
    elif algebra == "sum":
        np.add(x, y, out=x)
    else:
        dtype = _LANE_DTYPES[algebra]
        np.add(x.view(dtype), y.view(dtype), out=x.view(dtype))


@dataclass(frozen=True)
class MaskRef:
    """A reference to a mask dealt before: where in the streams it is, and the views taken of it since.

    Attributes
    ----------
    id : int
        Of the tensor or correlation that the mask belongs to.
    part : Part
        Shape and algebra of the mask before the views.
    start : int
        The first word, within the stream of the id.
    views : tuple of View
    owner : int, optional
        The mask is the words of this party alone; default the sum of all parties' words.
    without : int, optional
        A party whose words are left out of the sum: it knows them, and computes their part itself.
    """

    id: int
    part: Part
    start: int = 0
    views: tuple[View, ...] = ()
    owner: int | None = None
    without: int | None = None

    def view(self, view: View) -> MaskRef:
        """Return the mask of a view."""
        rows = None if self.views else _run_of_rows(view, self.part.shape)
        if rows is None:
            views = (*self.views, view)
            return MaskRef(self.id, self.part, self.start, views, self.owner, self.without)
        # A run of rows is a mask that starts later in the stream: the provider expands no other rows.
        shape = self.part.shape[1:]
        part = replace(self.part, shape=(len(rows), *shape))
        return replace(self, part=part, start=self.start + rows.start * prod(shape))

    def left_out(self, party: int) -> MaskRef:
        """Return the mask without the words of `party`."""
        return MaskRef(self.id, self.part, self.start, self.views, self.owner, party)

    def counted_from(self, base: int) -> MaskRef:
        """Return a copy whose id counts from `base`; a mask from before the base gets -id.

        Inputs of watched parties count from it from shortly before it on: their ids stay positive. So
        requests for a program that is given new rows each time are the same bytes.
        """
        # Without what says which key the mask has: of its own, or of an input (mpc.core.watching).
        number = self.id % OWN_IDS
        relative = number > base or self._is_near(base)
        return replace(self, id=self.id - base if relative else -self.id)

    def _is_near(self, base: int) -> bool:
        return self.id >= INPUT_IDS and self.id % OWN_IDS > base - _NEAR

    def outline(self, base: int) -> MaskRef:
        """Return what a plan for ids from base + 1 on can depend on: an input counts as in its requests."""
        return self.counted_from(base) if self._is_near(base) else self

    def placed_at(self, base: int) -> MaskRef:
        """Undo :meth:`counted_from`."""
        return replace(self, id=self.id + base if self.id > 0 else -self.id)

    def check(self, limit: int) -> tuple[int, ...]:
        """Return the shape of the mask as viewed, or raise ShapeError if the views do not fit.

        No view of more than `limit` words is accepted.
        """
        if not self.id or self.start < 0:
            raise ShapeError(f"a mask must have an id and a start, got {self.id} and {self.start}")
        for party in (self.owner, self.without):
            if party is not None and party < 0:
                raise ShapeError(f"a mask must name parties by their numbers, got {party}")
        shape = check_size(self.part.shape, limit)
        for view in self.views:
            shape = check_size(shape_of_view(shape, view, limit), limit)
        return shape


def apply_views(x: Words, views: Sequence[View], leading: int) -> Words:
    """Apply views to `x`, leaving its first `leading` axes as they are."""
    for kind, argument in views:
        if kind == "transpose":
            axes = tuple(a + leading for a in argument)  # type: ignore[attr-defined]
            x = x.transpose(*range(leading), *axes)
        elif kind == "reshape":
            x = x.reshape(*x.shape[:leading], *argument)  # type: ignore[misc]
        elif kind == "index":
            x = _index(x, argument, leading)  # type: ignore[arg-type]
        elif kind == "windows":
            x = argument.view(x)  # type: ignore[attr-defined]
        else:
            raise AssertionError(kind)
    return x


def _is_basic(key: object) -> bool:
    """Whether this part of an index is basic indexing; arrays, lists, True and False are not."""
    if key is None or key is Ellipsis:
        return True
    return isinstance(key, (slice, int, np.integer)) and not isinstance(key, bool)


def _index(x: Words, key: tuple[Any, ...], leading: int) -> Words:
    """Index the axes behind the first `leading` ones as `key` would index an array of them alone."""
    lists = [k for k in key if not _is_basic(k)]
    numbers_too = any(isinstance(k, (int, np.integer)) for k in key)
    if not lists or (len(lists) == 1 and not numbers_too and np.ndim(lists[0]) > 0):
        # For a single element NumPy returns a scalar.
        return np.asarray(x[(slice(None),) * leading + key])
    # NumPy may put the axes of several index arrays first, before the leading axes too. So index an
    # array of element numbers, and take the elements by number.
    shape = x.shape[leading:]
    numbers = np.arange(prod(shape)).reshape(shape)[key]
    return x.reshape(*x.shape[:leading], prod(shape))[(slice(None),) * leading + (numbers,)]


def _run_of_rows(view: View, shape: tuple[int, ...]) -> range | None:
    """Return the rows that a view picks if it is a slice of consecutive rows, else None."""
    kind, keys = view
    if kind != "index" or not shape or not isinstance(keys, tuple) or len(keys) != 1:
        return None
    rows = range(shape[0])[keys[0]] if isinstance(keys[0], slice) else None
    return rows if rows is not None and rows.step == 1 else None


def with_runs(keys: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return an index with a slice in place of an array of evenly spaced numbers, or of bools.

    The provider is sent the index of a masked array's view, and a slice tells it less. Indices with
    several arrays, or with an array and a number, stay: there NumPy orders axes in another way.
    """
    places = [k for k, key in enumerate(keys) if not _is_basic(key)]
    numbers_too = any(isinstance(key, (int, np.integer)) for key in keys)
    if len(places) != 1 or numbers_too:
        return keys
    (place,) = places
    key = keys[place]
    if not isinstance(key, np.ndarray) or key.ndim != 1:
        return keys
    before, behind = keys[:place], keys[place + 1 :]
    from_the_end = any(k is Ellipsis for k in before)
    count = sum(k is not None for k in (behind if from_the_end else before))
    axis = len(shape) - 1 - count if from_the_end else count
    run = _run_of(key, shape[axis]) if 0 <= axis < len(shape) else None
    return keys if run is None else (*before, run, *behind)


def _run_of(key: NDArray[Any], length: int) -> slice | None:
    """Return the slice that picks the same of `length` elements, if there is one."""
    if key.dtype == np.bool_:
        if len(key) != length:
            return None
        key = np.flatnonzero(key)
    if not len(key):
        return slice(0, 0)
    if key.dtype.kind not in "iu" or key.min() < -length or key.max() >= length:
        return None
    numbers = key.astype(np.int64) % length
    first, last = int(numbers[0]), int(numbers[-1])
    step = int(numbers[1]) - first if len(numbers) > 1 else 1
    if step == 0 or (np.diff(numbers) != step).any():
        return None
    stop = last + step
    return slice(first, stop if stop >= 0 else None, step)


def chosen_rows(ref: MaskRef) -> NDArray[np.int64] | None:
    """Return the numbers of the rows that the first view of `ref` picks, None if it does anything else."""
    if not ref.views or ref.views[0][0] != "index" or not ref.part.shape:
        return None
    keys = ref.views[0][1]
    if not isinstance(keys, tuple) or len(keys) != 1:
        return None
    (key,) = keys
    if not isinstance(key, (slice, np.ndarray)):
        return None
    if isinstance(key, np.ndarray) and key.dtype == np.bool_ and key.ndim != 1:
        return None
    rows: NDArray[np.int64] = np.arange(ref.part.shape[0])[key]
    return rows if rows.ndim == 1 else None


def check_dealt(mask: Words, size: int) -> None:
    """Raise ShapeError unless a mask has `size` words: kernels do not check bounds."""
    if mask.size != size:
        raise ShapeError(f"a mask must have {size} words, got {mask.size}")


class MaskSource(Protocol):
    """Something that can expand all parties' masks: the crypto provider, to `Correlation.deal`."""

    def mask(self, ref: MaskRef) -> Words:
        """Return the mask that `ref` refers to: the sum of all parties' shares of it."""


_classes: dict[str, type[Correlation]] = {}


def correlation_classes() -> dict[str, type[Correlation]]:
    """Return every class of correlations by its name on the wire: what a provider can be asked for."""
    return _classes


class Correlation:
    """Base of the protocols' correlations, each a frozen dataclass of sizes and mask references."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        known = _classes.setdefault(cls.__name__, cls)
        if known.__module__ != cls.__module__:
            raise TypeError(f"a correlation {cls.__name__} exists already in {known.__module__}")
        _classes[cls.__name__] = cls

    def counted_from(self, base: int) -> Self:
        """Return a copy whose references count ids from `base`, as requests do."""
        return self._with({n: ref.counted_from(base) for n, ref in self._references()})

    def outline(self, base: int) -> Self:
        """Return what a plan can depend on, see :meth:`MaskRef.outline`."""
        return self._with({n: ref.outline(base) for n, ref in self._references()})

    def placed_at(self, base: int) -> Self:
        """Undo :meth:`counted_from`."""
        return self._with({n: ref.placed_at(base) for n, ref in self._references()})

    def without_ids(self) -> Self:
        """Return a copy whose references have id 0."""
        return self._with(
            {
                n: replace(ref, id=0) if isinstance(ref, MaskRef) else ref.without_ids()
                for n, ref in self._references()
            }
        )

    @property
    def ids(self) -> list[int]:
        """The ids of the masks that the correlation refers to, in the order of its fields."""
        known = vars(self)
        if "_ids" not in known:
            known["_ids"] = ids = []
            for _, value in self._references():
                ids += [value.id] if isinstance(value, MaskRef) else value.ids
        found: list[int] = known["_ids"]
        return found

    def references(self) -> Iterator[MaskRef]:
        """Yield the references to masks, those of cross terms included."""
        for _, value in self._references():
            if isinstance(value, MaskRef):
                yield value
            else:
                yield from value.references()

    def _values(self) -> tuple[Any, ...]:
        return _fields_of(type(self))(self)  # type: ignore[arg-type]

    @cached_property
    def layout(self) -> Layout:
        """The parts and sizes; correlations that differ in ids alone share one layout."""
        ids: list[int] = []
        key = self._key(ids)
        if key is None:
            return Layout(self)
        vars(self)["_ids"] = ids
        found = _layouts.get(key)
        if found is None:
            if len(_layouts) >= _MOST_LAYOUTS:
                _layouts.clear()
            found = _layouts[key] = Layout(self)
        return found

    def keep_layout(self) -> None:
        """Give a correlation that came over the wire a layout that it shares with no other.

        Layouts are looked up by equality, and values that are equal, such as True and 1, differ in the
        digest that names a correlation.
        """
        vars(self)["layout"] = Layout(self)

    def _key(self, ids: list[int]) -> tuple[Any, ...] | None:
        """Return the key under which the layout is looked up, None if there is none; append to `ids`."""
        key: list[Any] = [type(self)]
        for value in self._values():
            kind = type(value)
            if kind is MaskRef:
                # An index can hold arrays, which are not hashable, and True as well as 1.
                for step, _ in value.views:
                    if step == "index":
                        return None
                ids.append(value.id)
                value = _of_ref(value)
            elif kind not in _PLAIN and isinstance(value, Correlation):
                value = value._key(ids)
                if value is None:
                    return None
            key.append(value)
        return tuple(key)

    def _references(self) -> Iterator[tuple[str, MaskRef | Correlation]]:
        known = vars(self)
        names: tuple[str, ...] | None = known.get("_refers")
        if names is None:
            # Kept by copies with other ids, see `_with`: to look for them takes longer than to read them.
            names = tuple(n for n, v in known.items() if isinstance(v, (MaskRef, Correlation)))
            known["_refers"] = names
        for name in names:
            yield name, known[name]

    def _with(self, changed: dict[str, Any]) -> Self:
        """Return a copy with other references; sizes are the same, so the cached layout stays."""
        if not changed:
            return self
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), **changed)
        for of_other_ids in ("_ids", "_name"):
            vars(twin).pop(of_other_ids, None)
        return twin

    def check(self, limit: int) -> None:
        """Raise ShapeError unless sizes and mask references fit together, within `limit` words.

        The provider calls this for every correlation that came over the network, before it deals:
        kernels check nothing. A class overrides it if its fields have to fit one another.
        """
        total = 0
        for part in (*self.masks(), *self.corrected()):
            total += prod(check_size(part.shape, limit))
        if total > limit:
            raise ShapeError(
                f"{type(self).__name__} must not have more than {limit} words, got {total}"
            )

    def masks(self) -> tuple[Part, ...]:
        """Return the uniform parts."""
        return ()

    def corrected(self) -> tuple[Part, ...]:
        """Return the parts that are functions of masks, and are dealt by corrections."""
        return ()

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        """Compute the last party's shares of the corrected parts, the correction, in place.

        Parameters
        ----------
        provider : MaskSource
            To look up masks by reference.
        masks : list of arrays
            This correlation's own masks, summed over all parties.
        out : list of arrays
            On entry the sum (XOR) of all other parties' shares of each corrected part, on return
            the part's value minus (XOR) that sum.
        """
        raise NotImplementedError

    @property
    def mask_words(self) -> int:
        """The number of words of the masks, which every party expands."""
        return self.layout.mask_words

    @property
    def corrected_words(self) -> int:
        """The number of words of the correction, which the last party receives."""
        return self.layout.corrected_words


def cut(words: Words, parts: Sequence[Part]) -> list[Words]:
    """Cut an array of shape (..., words of all parts) into the parts, of shape (..., *part.shape)."""
    leading = words.shape[:-1]
    if len(parts) == 1:
        return [words.reshape(*leading, *parts[0].shape)]
    pieces, start = [], 0
    for part in parts:
        stop = start + part.size
        piece = words[..., start:stop]
        pieces.append(piece if len(part.shape) == 1 else piece.reshape(*leading, *part.shape))
        start = stop
    return pieces


class Layout:
    """Parts and sizes, which correlations that differ in ids alone have in common.

    Attributes
    ----------
    masks, corrected, parts : tuple of Part
    mask_words, corrected_words : int
    digest : bytes, optional
        Cached by :mod:`mpc.core.wire`.
    """

    __slots__ = ("corrected", "corrected_words", "digest", "mask_words", "masks", "parts")

    def __init__(self, correlation: Correlation) -> None:
        self.masks = correlation.masks()
        self.corrected = correlation.corrected()
        self.parts = (*self.masks, *self.corrected)
        self.mask_words = sum(part.size for part in self.masks)
        self.corrected_words = sum(part.size for part in self.corrected)
        self.digest: bytes | None = None


# Types of fields beside references and cross terms.
_PLAIN = {bool, int, str, tuple, type(None)}
_MOST_LAYOUTS = 4096
_layouts: dict[Any, Layout] = {}
_of_ref = attrgetter("part.shape", "part.algebra", "start", "owner", "without", "views")


@lru_cache(maxsize=64)
def _fields_of(cls: type[Correlation]) -> Callable[[Correlation], tuple[Any, ...]]:
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    # For a single name, attrgetter returns no tuple.
    return attrgetter(*names) if len(names) > 1 else lambda c: (getattr(c, names[0]),)
