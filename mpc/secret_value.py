"""What a process holds of a secret array, and what the array never tells."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation
from mpc.errors import ArgumentError, DtypeError, RangeError, RevealError
from mpc.protocols.convert import MaskedBit
from mpc.protocols.masking import Mask
from mpc.protocols.sharing import Given
from mpc.ranges import LARGEST

if TYPE_CHECKING:
    from mpc.session import Session

__all__ = ["SecretValue"]

Words = NDArray[np.uint64]


class SecretValue:
    """The part of a shared array that protocols work with: shares, mask, bit, bound."""

    __slots__ = (
        "_mask", "_shares", "_term", "binary", "bit", "bound", "frac_bits", "given", "session", "shape",
        "truncated",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        shares: Words | None,
        frac_bits: int,
        bound: int,
        *,
        mask: Mask | None = None,
        bit: MaskedBit | None = None,
        given: Given | None = None,
        term: Correlation | None = None,
        binary: bool = False,
    ) -> None:
        self.session = session
        self._shares = shares
        # A correlation whose shares are yet to be added, see `apart`.
        self._term = term
        self._mask = mask
        self.frac_bits = frac_bits
        if bound > LARGEST + 1:
            # Not for users: every operation settles a larger bound first, see mpc.ranges.
            raise RangeError(f"a shared array must have a bound of at most 2^62, got {bound}")
        self.bound = bound
        self.binary = binary or bit is not None
        self.bit = bit
        self.given = given
        # In the format, once it was needed so: another truncation would round anew.
        self.truncated: Self | None = None
        if shares is not None:
            held = shares
        elif given is not None:
            held = given.encoded
        elif mask is not None:
            held = mask.delta
        else:
            raise ArgumentError("a SharedArray needs shares, a mask, or a value that was given")
        self.shape: tuple[int, ...] = held.shape[1:]
        if term is not None and not session.source.takes_terms:
            self._deal_term()

    def derive(
        self,
        shares: Words | None,
        *,
        frac_bits: int,
        bound: int,
        mask: Mask | None = None,
        bit: MaskedBit | None = None,
        given: Given | None = None,
        term: Correlation | None = None,
        binary: bool = False,
    ) -> Self:
        """Make an array of the same session (for protocols)."""
        return type(self)(
            self.session, shares, frac_bits, bound, mask=mask, bit=bit, given=given, term=term,
            binary=binary,
        )  # fmt: skip

    def without_shares(self, planned: Session) -> Self:
        """Make the same array in a session where no party lives (for plans)."""
        empty = np.empty((0, *self.shape), np.uint64)
        mask = None if self._mask is None else Mask(self._mask.ref, (), empty, empty)
        given = None if self.given is None else self.given.without_value(planned)
        bit = self.bit
        if bit is not None:
            bit = MaskedBit(bit.ref, bit.beta[:0], bit.delta[:0])
        shares = empty if mask is None and given is None else None
        twin = type(self)(
            planned, shares, self.frac_bits, self.bound, mask=mask, bit=bit, given=given,
            term=self._term, binary=self.binary,
        )  # fmt: skip
        if self.truncated is not None:
            twin.truncated = self.truncated.without_shares(planned)
        return twin

    def outline(self) -> Hashable:
        """Return what a plan can depend on, see :meth:`mpc.Session.prepare`."""
        return (
            self.shape,
            self.frac_bits,
            self.bound,
            self.binary,
            None if self.given is None else self.given.owner,
            None if self._mask is None else self._mask.ref,
            None if self.bit is None else self.bit.ref,
            self._term,
            None if self.truncated is None else self.truncated.outline(),
        )

    def with_integer_bound(self, bound: int) -> Self:
        """Narrow the bound on the encoded value (for protocols)."""
        if bound >= self.bound:
            return self
        narrowed = self.derive(
            self._shares,
            frac_bits=self.frac_bits,
            bound=bound,
            mask=self._mask,
            bit=self.bit,
            given=self.given,
            term=self._term,
            binary=self.binary,
        )
        # Rounded anew, it would tell more.
        narrowed.truncated = self.truncated
        return narrowed

    def as_binary(self) -> Self:
        """Return the same, known to hold zeros and ones alone (for protocols)."""
        return self.derive(
            self._shares, frac_bits=0, bound=min(1, self.bound), mask=self._mask, bit=self.bit,
            given=self.given, term=self._term, binary=True,
        )  # fmt: skip

    # What it is.

    @property
    def shares(self) -> Words:
        """This process's shares, of shape (p, *shape) (for protocols)."""
        if self.given is not None:
            return self.given.shares()
        if self._shares is None:
            assert self._mask is not None
            shares = self._mask.shares.copy()
            first = self.session.first_row
            if first is not None:
                shares[first : first + 1] += self._mask.delta
            self._shares = shares
        if self._term is not None:
            self._deal_term()
        return self._shares

    def _deal_term(self) -> None:
        assert self._term is not None and self._shares is not None
        with self.session.protocol("product"):
            words = self.session.correlated(self._term)[1].reshape(self._shares.shape)
        words += self._shares
        self._shares, self._term = words, None

    def apart(self) -> tuple[Self, Correlation | None]:
        """Return the array without the term that its shares still lack, and the term (for protocols).

        A product leaves its term for later. What is opened under a fresh uniform mask needs no
        shares of it: the mask takes it in, see :mod:`mpc.protocols.truncation`. Whatever else looks
        at the shares gets it dealt first.
        """
        if self._term is None:
            return self, None
        return self.derive(self._shares, frac_bits=self.frac_bits, bound=self.bound), self._term

    def addends(self) -> list[tuple[int, Words]]:
        """Return rows of the party axis with what adds up to the value over all parties.

        To be opened under a mask of each party alone: what a party has given is its own addend,
        not a share (for protocols).
        """
        if self.given is None and self._shares is None:
            # Not by `shares`, which copies the mask for the sake of one row.
            assert self._mask is not None
            lam, first = self._mask.shares, self.session.first_row
            return [
                (row, lam[row, ...] + self._mask.delta[0, ...] if row == first else lam[row, ...])
                for row in range(len(lam))
            ]
        if self.given is None:
            return list(enumerate(self.shares))
        if self.given.owner not in self.session.here:
            return []
        return [(self.session.here.index(self.given.owner), self.given.encoded[0])]

    @property
    def mask(self) -> Mask | None:
        """The mask, once there is one (for protocols)."""
        return self._mask

    def set_mask(self, mask: Mask) -> None:
        """Keep the mask from now on; shares follow from it (for protocols)."""
        self._mask, self._shares = mask, None

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
        """The dtype that revealing gives."""
        return np.dtype(np.float64 if self.frac_bits else np.int64)

    def __len__(self) -> int:
        if not self.shape:
            raise DtypeError("len() of a SharedArray without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        parties = ", ".join(self.session.parties)
        return f"SharedArray(shape={self.shape}, frac_bits={self.frac_bits}, parties={parties})"

    # What it refuses.

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
