"""A secret array as protocols see it: this process's shares or mask, and the operations it refuses."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from math import prod
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, View, apply_views, with_runs
from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    RangeError,
    RevealError,
    ShapeError,
    SottoError,
)
from mpc.core.known import Mask, Pending, Plaintext, SecretBit
from mpc.core.ranges import LARGEST
from mpc.core.runtime import Runtime
from ring.real_arrays import check_unmasked

__all__ = ["Secret", "SecretValue", "check_axis"]

Words = NDArray[np.uint64]
Secret = TypeVar("Secret", bound="SecretValue")
"""The class of arrays that a protocol takes and returns: SharedArray, in a user's program."""


class SecretValue:
    """A secret array: the part of SharedArray that protocols work with.

    An array is held in one of three ways: as shares, of which all but one party's may be masks that the
    provider knows; as a mask with the opened difference Delta, from which shares follow; or, for an
    input, as the plaintext of its owner, from which and from keys shares follow.

    Attributes
    ----------
    session : Runtime
    shape : tuple of int
    frac_bits : int
    bound : int
        Public, on the magnitude of the encoded values.
    binary : bool
        Whether every value is 0 or 1.
    bit : SecretBit or None
        The same values as bits, if the array is the result of a comparison.
    plaintext : Plaintext or None
        Of the owner, if the array is an input or a view of one.
    kept : bool
        Whether it is in use for long, as weights are: then its mask gets a key of its own.
    truncated : SecretValue or None
        This array truncated to the session's format, once that was needed. It is kept because
        truncating again would round anew, and two roundings tell more than one.
    pending : Pending or None
        The last step of a protocol, if shares of its result were not needed yet.
    """

    __slots__ = (
        "_cross_term",
        "_mask",
        "_shares",
        "_sided",
        "binary",
        "bit",
        "bound",
        "frac_bits",
        "kept",
        "pending",
        "plaintext",
        "session",
        "shape",
        "truncated",
    )  # fmt: skip

    def __init__(
        self,
        session: Runtime,
        shares: Words | None,
        frac_bits: int,
        bound: int,
        *,
        mask: Mask | None = None,
        bit: SecretBit | None = None,
        plaintext: Plaintext | None = None,
        cross_term: Correlation | None = None,
        binary: bool = False,
        pending: Pending | None = None,
        sided: MaskRef | None = None,
    ) -> None:
        self.session = session
        self._shares = shares
        # Of a product whose cross term is not dealt yet: shares of it are still to be added to `_shares`.
        self._cross_term = cross_term
        self._mask = mask
        self._sided = sided
        self.frac_bits = frac_bits
        if bound > LARGEST + 1:
            # Not for users: every operation settles a larger bound first, see mpc.core.ranges.
            raise RangeError(f"a shared array must have a bound of at most 2^62, got {bound}")
        self.bound = bound
        self.binary = binary or bit is not None
        self.bit = bit
        self.plaintext = plaintext
        self.truncated: Self | None = None
        self.kept = False
        self.pending = pending
        self.shape: tuple[int, ...]
        if shares is not None:
            self.shape = shares.shape[1:]
        elif pending is not None:
            self.shape = pending.shape
        elif plaintext is not None:
            self.shape = plaintext.encoded.shape[1:]
        elif mask is not None:
            self.shape = mask.delta.shape[1:]
        else:
            raise ArgumentError("a SharedArray needs shares, a mask, or its owner's plaintext")
        if cross_term is not None and not session.source.takes_terms:
            self._deal_cross_term()

    def derive(
        self,
        shares: Words | None,
        *,
        frac_bits: int,
        bound: int,
        mask: Mask | None = None,
        bit: SecretBit | None = None,
        plaintext: Plaintext | None = None,
        cross_term: Correlation | None = None,
        binary: bool = False,
        pending: Pending | None = None,
        sided: MaskRef | None = None,
        origins: Sequence[SecretValue] = (),
    ) -> Self:
        """Make an array of the same session (for protocols).

        `origins` are the arrays whose shares these are: copied, or computed with public numbers alone.
        """
        pair = self.session.pair
        if pair is not None and shares is not None and origins:
            pair.operands.follow(shares, [origin._held for origin in origins])
        return type(self)(
            self.session, shares, frac_bits, bound, mask=mask, bit=bit, plaintext=plaintext,
            cross_term=cross_term, binary=binary, pending=pending, sided=sided,
        )  # fmt: skip

    @property
    def _held(self) -> Words:
        """What the other party of two could be shown of the array: an input, or shares."""
        return self.shares if self.plaintext is None else self.plaintext.base.encoded

    def without_shares(self, planned: Runtime) -> Self:
        """Make the same array in a session where no party lives (for plans)."""
        empty = np.empty((0, *self.shape), np.uint64)
        mask = None if self._mask is None else Mask(self._mask.ref, (), empty, empty)
        plaintext = None if self.plaintext is None else self.plaintext.without_value(planned)
        bit = None if self.bit is None else self.bit.without_shares()
        shares = empty if mask is None and plaintext is None else None
        twin = type(self)(
            planned, shares, self.frac_bits, self.bound, mask=mask, bit=bit, plaintext=plaintext,
            cross_term=self._cross_term, binary=self.binary, sided=self._sided,
        )  # fmt: skip
        if self.pending is not None:
            twin.pending, twin._shares = self.pending.without_shares(planned), None
        if self.truncated is not None:
            twin.truncated = self.truncated.without_shares(planned)
        twin.kept = self.kept
        return twin

    def outline(self) -> Hashable:
        """Return all that a plan can depend on: shape, format, bound, owner, references to masks.

        Two arrays with equal outlines lead to equal plans, see :meth:`mpc.Session.prepare`.
        """
        base, term = self.session.last_id, self._cross_term
        return (
            self.shape,
            self.frac_bits,
            self.bound,
            self.binary,
            self.kept,
            None if self.plaintext is None else self.plaintext.owner,
            None if self._mask is None else self._mask.ref.outline(base),
            self._sided,
            None if self.bit is None else self.bit.ref,
            None if term is None else term.outline(base),
            None if self.pending is None or self.pending.opened else type(self.pending).__name__,
            None if self.truncated is None else self.truncated.outline(),
        )

    def with_integer_bound(self, bound: int) -> Self:
        """Narrow the bound on the encoded value (for protocols)."""
        if bound >= self.bound:
            return self
        narrowed = self.derive(
            self._settled(),
            frac_bits=self.frac_bits,
            bound=bound,
            mask=self._mask,
            bit=self.bit,
            plaintext=self.plaintext,
            cross_term=self._cross_term,
            binary=self.binary,
            sided=self._sided,
        )
        # The same truncation: rounding anew would tell more.
        narrowed.truncated = self.truncated
        return narrowed

    def as_binary(self) -> Self:
        """Return this array marked as holding zeros and ones alone (for protocols)."""
        return self.derive(
            self._settled(), frac_bits=0, bound=min(1, self.bound), mask=self._mask, bit=self.bit,
            plaintext=self.plaintext, cross_term=self._cross_term, binary=True, sided=self._sided,
        )  # fmt: skip

    # Shares, mask and shape.

    def _settled(self) -> Words | None:
        """Return the shares, unless they follow from a mask or a plaintext."""
        if self.pending is not None:
            self._finish_pending()
        return self._shares

    def _finish_pending(self) -> None:
        assert self.pending is not None
        self._shares, self.pending = self.pending.shares(), None

    @property
    def shares(self) -> Words:
        """This process's additive shares, of shape (p, *shape) (for protocols).

        Asking for them has the cross term of a product dealt, if it was not yet.
        """
        if self.plaintext is not None:
            return self.plaintext.shares()
        if self.pending is not None:
            self._finish_pending()
        if self._shares is None:
            assert self._mask is not None
            shares = self._mask.shares.copy()
            first = self.session.first_row
            if first is not None:
                shares[first : first + 1] += self._mask.delta
            self._shares = shares
        if self._cross_term is not None:
            self._deal_cross_term()
        return self._shares

    def _deal_cross_term(self) -> None:
        """Get shares of the cross term as correlated randomness, and add them to the product's."""
        assert self._cross_term is not None and self._shares is not None
        with self.session.protocol("product"):
            (words,) = self.session.correlated(self._cross_term).corrected
        words = words.reshape(self._shares.shape)
        words += self._shares
        self._shares, self._cross_term = words, None

    def split_cross_term(self) -> tuple[Self, Correlation | None]:
        """Return z - C and C, for a product z whose cross term C is not dealt yet (for protocols).

        In Beaver's multiplication of x and w, the parties compute shares of z - C from opened values
        and their shares of the masks; only the provider knows C = lambda_x lambda_w, see
        :mod:`mpc.protocols.product`. Dealing shares of C is put off, since it is often needless: a
        protocol that opens z under a fresh mask D opens (z - C) + D instead, and the provider takes
        r = D - C for the mask (:mod:`mpc.protocols.truncation`). Asking for :attr:`shares` has C
        dealt and added.

        Returns
        -------
        SecretValue
            z - C; this array itself if no cross term is pending.
        Correlation or None
            C, as a correlation for the provider; None if no cross term is pending.
        """
        if self._cross_term is None:
            return self, None
        return self.derive(
            self._shares, frac_bits=self.frac_bits, bound=self.bound
        ), self._cross_term

    @property
    def cross_term(self) -> Correlation | None:
        """C of :meth:`split_cross_term` alone (for protocols)."""
        return self._cross_term

    def addends(self) -> list[tuple[int, Words]]:
        """Return (row of the party axis, words) pairs whose words add up to the value over all parties.

        For openings to which every party adds a mask of its own (for protocols). An input's only
        addend is the plaintext of its owner: no shares of it are expanded. Otherwise the addends are
        the shares.
        """
        if self.plaintext is None and self._settled() is None:
            # Not by `shares`, which would copy all rows of the mask to add Delta to one.
            assert self._mask is not None
            lam, first = self._mask.shares, self.session.first_row
            return [
                (row, lam[row, ...] + self._mask.delta[0, ...] if row == first else lam[row, ...])
                for row in range(len(lam))
            ]
        if self.plaintext is None:
            return list(enumerate(self.shares))
        if self.plaintext.owner not in self.session.here:
            return []
        return [(self.session.here.index(self.plaintext.owner), self.plaintext.encoded[0])]

    @property
    def mask(self) -> Mask | None:
        """The mask under which the array was opened, None before that (for protocols)."""
        return self._mask

    def set_mask(self, mask: Mask) -> None:
        """Hold the array by this mask from now on; shares follow from it (for protocols)."""
        self._mask, self._shares, self._sided = mask, None, None

    @property
    def sided(self) -> MaskRef | None:
        """The mask that all shares but those of party ``sided.without`` are, else None (for protocols)."""
        return self._sided

    def set_sided(self, ref: MaskRef, shares: Words) -> None:
        """Hold the array by these shares from now on: a mask, but for one party's (for protocols)."""
        self._sided, self._shares = ref, shares

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the revealed array."""
        return np.dtype(np.float64 if self.frac_bits else np.int64)

    def __len__(self) -> int:
        if not self.shape:
            raise DtypeError("len() of a SharedArray without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        parties = ", ".join(self.session.parties)
        return f"SharedArray(shape={self.shape}, frac_bits={self.frac_bits}, parties={parties})"

    # Views, which need no communication.

    def view(self, step: View) -> Self:
        """Transpose, reshape or index, the mask and the plaintext too (for protocols)."""
        held = self._mask is not None or self.plaintext is not None
        # A reshape keeps the order of elements, so it needs no shares of the cross term.
        x, cross_term = self.split_cross_term() if step[0] == "reshape" else (self, None)
        return x.derive(
            None if held else apply_views(x.shares, [step], 1),
            frac_bits=x.frac_bits,
            bound=x.bound,
            mask=None if x.mask is None else x.mask.view(step),
            plaintext=None if x.plaintext is None else x.plaintext.view(step),
            cross_term=cross_term,
            binary=x.binary,
            sided=None if x.sided is None else x.sided.view(step),
            origins=(x,),
        )

    def __getitem__(self, key: Any) -> Self:
        self.session.check_open()
        keys = key if isinstance(key, tuple) else (key,)
        for k in keys:
            if isinstance(k, SecretValue):
                raise self._refuse("indexing by a SharedArray")
            check_unmasked(k, "an index")
        # Arrays are copied: the caller may change them before the provider reads the index.
        try:
            keys = tuple(
                np.array(k, None if len(k) else np.intp) if isinstance(k, list) else copy(k)
                for k in keys
            )
            return self.view(("index", with_runs(keys, self.shape)))
        except (TypeError, ValueError) as error:
            if isinstance(error, SottoError):
                raise
            raise DtypeError(f"an index must be as NumPy takes it: {error}") from None
        except IndexError as error:
            problem = error
            try:  # again without the party axis, which NumPy's message counts
                np.broadcast_to(np.uint8(0), self.shape)[keys]
            except IndexError as plain:
                problem = plain
            raise ShapeError(f"index out of range for shape {self.shape}: {problem}") from None

    def __iter__(self) -> Iterator[Self]:
        for k in range(len(self)):
            yield self[k]

    @property
    def T(self) -> Self:
        """The transposed array."""
        return self.transpose()

    def _axis(self, axis: int) -> int:
        return check_axis(axis, self.ndim)

    def transpose(self, *axes: Any) -> Self:
        """Permute the axes, by default reverse them."""
        order: Sequence[Any] = (
            axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        )
        if not order or order[0] is None:
            order = range(self.ndim)[::-1]
        numbers = tuple(self._axis(a) for a in order)
        if sorted(numbers) != list(range(self.ndim)):
            raise ShapeError(f"axes must be a permutation of {self.ndim} axes, got {tuple(order)}")
        return self.view(("transpose", numbers))

    def reshape(self, *shape: Any) -> Self:
        """Give the same elements another shape; one size may be -1."""
        sequence = len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray))
        sizes = tuple(shape[0]) if sequence else shape
        try:
            # Let NumPy work out -1 on an array without memory.
            target = np.broadcast_to(np.uint8(0), self.shape).reshape(sizes).shape
        except TypeError:
            raise DtypeError(f"shape must be whole numbers, got {sizes}") from None
        except ValueError:
            raise ShapeError(f"cannot reshape shape {self.shape} to {sizes}") from None
        return self.view(("reshape", target))

    def ravel(self) -> Self:
        """Flatten to one axis."""
        return self.reshape(-1)

    flatten = ravel

    # Operations that would reveal a secret, which are refused.

    def _refuse(self, what: str) -> RevealError:
        return RevealError(f"{what} would reveal a secret; call .reveal() first, if that is agreed")

    def __array__(self, *args: object, **kwargs: object) -> NDArray[Any]:
        raise self._refuse(
            "turning a SharedArray into a NumPy array, as functions and left operands of other"
            " libraries do (give them as NumPy arrays),"
        )

    def __bool__(self) -> bool:
        raise self._refuse("the truth value of a SharedArray")

    def __float__(self) -> float:
        raise self._refuse("float() of a SharedArray")

    def __int__(self) -> int:
        raise self._refuse("int() of a SharedArray")

    def __index__(self) -> int:
        raise self._refuse("indexing by a SharedArray")

    def __contains__(self, item: object) -> bool:
        raise self._refuse("'in' on a SharedArray")

    def __reduce__(self) -> Any:
        raise RevealError(
            "a SharedArray cannot be pickled: it would put several parties' shares in one place"
        )

    def __setitem__(self, key: object, value: object) -> None:
        raise DtypeError(
            "a SharedArray cannot be changed in place; build a new one with np.where or np.concatenate"
        )


def check_axis(axis: int, ndim: int) -> int:
    """Return an axis counted from the front, or raise: axis -ndim - 1 would be the party axis."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise DtypeError(f"axis must be a whole number, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise ShapeError(f"axis must be in [{-ndim}, {ndim}), got {number}")
    return number % ndim
