"""Products of two secrets: elementwise and matrix.

1. Mask x and w, opening those that have no mask yet: Delta_x, Delta_w.
2. Party i: z_i = Delta_x . w_i + lambda_{x,i} . Delta_w.
3. Provider: the cross term C = lambda_x . lambda_w. The sum over i of z_i + C_i is x . w. Where the
   product is truncated next, alone or within ReLU, the provider subtracts C from the truncation's mask,
   and shares of C are never dealt (see :mod:`mpc.protocols.truncation`). For any other use C is shared
   with one correction.
These are Beaver triples (lambda_x, lambda_w, C), with masks that stay with x and w for later products.
If x is an input of party j, with a mask that j knows, j multiplies x itself:
z_j = x . (Delta_w + lambda_{w,j}), the others z_i = Delta_x . lambda_{w,i}, and lambda_{w,j} is left out
of C. So a product of bob's images with weights, alice's or secret to both, takes one multiplication at
each party, and one at the provider.
If w is an input of party j that has its mask, and x is held by shares without one, as in every layer behind
the first, x is opened to party j alone (:mod:`mpc.protocols.masking`): party j holds x - lambda, party
i != j holds lambda_i, lambda being the sum of the lambda_i. Then
z_j = (x - lambda) . w,  z_i = lambda_i . Delta_w,  C = lambda . lambda_w.
Party j sends nothing, and no other party waits.
The product has the fractional bits of both operands together; it is truncated when an operation needs
fewer. Operands with more fractional bits than the format are truncated first; beside an operand in the
format, the other may keep up to the format's guard bits more.
Cost: 1 round, 8 (n - 1) bytes for each element not yet masked (none if both are masked), 8 bytes if it
is opened to party j alone; correction 8 bytes an element of z, none if it is truncated.

Source: Beaver 1991; ABY2.0 (Patra, Schneider, Suresh, Yalame 2021, section 3.1); opening to the owner
alone: ours.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.known import Mask
from mpc.core.secret_value import Secret, SecretValue
from mpc.core.sizes import broadcast
from mpc.protocols import linear, own_products, range_check
from mpc.protocols.masking import mask_ahead, mask_to, mask_together
from mpc.protocols.truncation import to_format
from mpc.two_party.pair import Pair
from ring.matmul import matmul_add

__all__ = ["cost", "grouped", "mask_operands", "matmul", "multiply", "multiply_within"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class ProductTerm(Correlation):
    """The cross term C = lambda_x . lambda_w: elementwise ("multiply"), "matmul", or "grouped" matrices."""

    kind: str
    x: MaskRef
    w: MaskRef
    shape: tuple[int, ...]

    def corrected(self) -> tuple[Part, ...]:
        return (Part(self.shape),)

    def check(self, limit: int) -> None:
        super().check(limit)
        x, w = self.x.check(limit), self.w.check(limit)
        if self.kind == "matmul" and len(x) >= 2 and len(w) >= 2 and x[-1] == w[-2]:
            fits = (*broadcast(x[:-2], w[:-2]), x[-2], w[-1]) == self.shape
        elif self.kind == "grouped" and len(x) == len(w) == 3 and (x[0], x[2]) == w[:2]:
            fits = (x[1], x[0] * w[2]) == self.shape
        else:
            fits = self.kind == "multiply" and broadcast(x, w) == self.shape
        if not fits:
            raise ShapeError(
                f"a {self.kind} of the shapes {x} and {w} does not have the shape {self.shape}"
            )

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        (c,) = out
        x, w = provider.mask(self.x), provider.mask(self.w)
        np.negative(c, out=c)
        if self.kind == "matmul":
            matmul_add(x, w, c)
        elif self.kind == "grouped":
            c += _grouped(x, w)
        else:
            c += x * w


def _grouped(x: Words, w: Words) -> Words:
    """Multiply a stack of matrices (g, m, k) with one of (g, k, n), side by side: (m, g n)."""
    (groups, m, _), n = x.shape, w.shape[2]
    # By the transposed product, whose rows are as long as x has rows: n is often 1.
    out = np.zeros((groups, n, m), np.uint64)
    matmul_add(w.transpose(0, 2, 1), x.transpose(0, 2, 1), out)
    return out.reshape(groups * n, m).T


def _known(x: SecretValue) -> int | None:
    """Return the party that knows the mask of x, since x is its input; None if no party does."""
    return None if x.mask is None else x.mask.ref.owner


def given_by(x: SecretValue, w: SecretValue) -> int | None:
    """Return the party to which alone x is opened for a product with w, None if it is masked for all.

    That is the owner of w, where w is an input that has its mask, and x is held by shares.
    """
    if x.plaintext is not None or x.mask is not None or w.plaintext is None:
        return None
    return _known(w)


def mask_operands(x: SecretValue, w: SecretValue) -> None:
    """Open the operands of a product that have no mask yet, in one round (for protocols that view them)."""
    for one, other in ((x, w), (w, x)):
        party = given_by(one, other)
        if party is not None:
            mask_to(one, party)
            return
    mask_ahead(x, w)


# A row of the party axis, and the left and the right factor that are multiplied there.
_Local = tuple[int, Words, Words]


def _factors(x: SecretValue, w: SecretValue) -> tuple[tuple[MaskRef, MaskRef], Iterator[_Local]]:
    """Steps 1 and 2: return the masks that the provider multiplies, and what each party multiplies.

    The latter adds up to z in each row.
    """
    for one, other in ((x, w), (w, x)):
        party = given_by(one, other)
        if party is not None:
            ref, mask = mask_to(one, party), other.mask
            assert mask is not None
            refs, local = (ref, mask.ref), _one_sided(one, other, mask)
            if one is x:
                return refs, local
            return refs[::-1], ((row, right, left) for row, left, right in local)
    x_mask, w_mask = mask_together(x, w)
    return _refs(x, w, x_mask, w_mask), _local_products(x, w, x_mask, w_mask)


def _one_sided(x: SecretValue, w: SecretValue, mask: Mask) -> Iterator[_Local]:
    """Yield the factors where the owner of w alone sees x under its mask: that is its share of x."""
    own = dict(w.addends())
    for row, share in enumerate(x.shares):
        yield row, share, own[row] if row in own else mask.delta[0]


def _refs(x: SecretValue, w: SecretValue, x_mask: Mask, w_mask: Mask) -> tuple[MaskRef, MaskRef]:
    """Return references to the masks that the provider multiplies for C."""
    x_owner, w_owner = _known(x), _known(w)
    if x_owner is not None and w_owner is None:
        return x_mask.ref, w_mask.ref.left_out(x_owner)
    if w_owner is not None and x_owner is None:
        return x_mask.ref.left_out(w_owner), w_mask.ref
    return x_mask.ref, w_mask.ref


def _local_products(
    x: SecretValue, w: SecretValue, x_mask: Mask, w_mask: Mask
) -> Iterator[tuple[int, Words, Words]]:
    """Step 2: yield (row of z, left factor, right factor), whose products add up to z in each row."""
    here, x_owner, w_owner = x.session.here, _known(x), _known(w)
    if x_owner is not None and w_owner is None:
        for row, lam in enumerate(w_mask.shares):
            if here[row] != x_owner:
                yield row, x_mask.delta[0], lam
        for row, words in x.addends():
            yield row, words, w_mask.without_others(row)
    elif w_owner is not None and x_owner is None:
        for row, lam in enumerate(x_mask.shares):
            if here[row] != w_owner:
                yield row, lam, w_mask.delta[0]
        for row, words in w.addends():
            yield row, x_mask.without_others(row), words
    else:
        for row, words in w.addends():
            yield row, x_mask.delta[0], words
        for row, words in zip(x_mask.rows, x_mask.shares, strict=True):
            yield row, words, w_mask.delta[0]


def cost(parties: int, masked: int, size: int = 0, *, to_owner: bool = False) -> Spent:
    """Declare the cost, if the party that sends most opens `masked` elements.

    `size` is the number of elements of the product if its cross term is dealt, 0 if it is truncated.
    With `to_owner` they are opened to the owner of the other operand alone.
    """
    each = 8 if to_owner else 8 * (parties - 1)
    return Spent(1 if masked else 0, each * masked, 8 * size)


def _in_format(x: Secret, w: Secret, name: str, addends: int = 1) -> tuple[Secret, Secret]:
    """Return the operands, truncated to the fractional bits that a product takes."""
    fixed_point = x.session.format

    def keeps(one: Secret, other: Secret) -> bool:
        return (
            other.frac_bits == fixed_point.frac_bits
            and one.frac_bits <= fixed_point.frac_bits + fixed_point.guard_bits
        )

    def bound_of(one: Secret) -> int:
        return -(-one.bound >> max(0, one.frac_bits - fixed_point.frac_bits))

    # With ranges="error" a product is refused before a round is spent on truncation.
    x_keeps, w_keeps = keeps(x, w), keeps(w, x)
    left, right = (x.bound if x_keeps else bound_of(x)), (w.bound if w_keeps else bound_of(w))
    frac_bits = sum(
        one.frac_bits if kept else min(one.frac_bits, fixed_point.frac_bits)
        for one, kept in ((x, x_keeps), (w, w_keeps))
    )
    x.session.range_policy.foresee(name, left * right * max(1, addends), frac_bits)
    return x if x_keeps else to_format(x), w if w_keeps else to_format(w)


def multiply(x: Secret, w: Secret, *, whole: bool = False) -> Secret:
    """Elementwise product with broadcasting.

    With `whole`, operands are not truncated first, however many fractional bits they have.
    """
    try:
        shape = np.broadcast_shapes(x.shape, w.shape)
    except ValueError:
        raise ShapeError(
            f"operands of * must broadcast, got shapes {x.shape} and {w.shape}"
        ) from None
    session = x.session
    if not whole:
        x, w = _in_format(x, w, "*")
    frac_bits = x.frac_bits + w.frac_bits
    bound = linear.settled(
        x, "*", x.bound * w.bound, frac_bits, (x, w), operator.mul, 1,
        lambda: (range_check.bilinear(x, w, multiply, 1),),
    )  # fmt: skip
    binary = x.binary and w.binary
    pair = session.pair
    with session.protocol("product"):
        if pair is not None:
            z = own_products.multiply(session, pair, x, w, shape)
            return x.derive(z, frac_bits=frac_bits, bound=bound, binary=binary)
        refs, factors = _factors(x, w)
        z = np.zeros((len(session.here), *shape), np.uint64)
        for row, left, right in factors:
            # Not by *, which warns where single elements wrap around, as they are meant to.
            z[row, ...] += np.multiply(left, right)
        cross_term = ProductTerm("multiply", *refs, shape)
        return x.derive(z, frac_bits=frac_bits, bound=bound, cross_term=cross_term, binary=binary)


def multiply_within(x: Secret, w: Secret, bound: int, frac_bits: int | None = None) -> Secret:
    """Elementwise product of operands as they are, with a bound that the caller knows (for protocols).

    The operands' own bounds may say less. `frac_bits` of the result are by default those of both.
    """
    mask_ahead(x, w)
    z = multiply(x.with_integer_bound(1), w.with_integer_bound(1), whole=True)
    words, cross_term = z.split_cross_term()
    bits = z.frac_bits if frac_bits is None else frac_bits
    return words.derive(words.shares, frac_bits=bits, bound=bound, cross_term=cross_term)


def matmul(x: Secret, w: Secret, own: Callable[[Pair], Words] | None = None) -> Secret:
    """Matrix product as by :func:`numpy.matmul`, of operands of at least two axes.

    `own` makes the parties' shares without a provider, if x and w are views of what they can multiply.
    """
    if x.shape[-1] != w.shape[-2]:
        raise ShapeError(
            f"operands of @ must agree in the inner dimension, got shapes {x.shape} and {w.shape}"
        )
    leading = x.shape[:-2]
    if leading != w.shape[:-2]:
        try:
            leading = np.broadcast_shapes(leading, w.shape[:-2])
        except ValueError:
            raise ShapeError(
                f"leading axes of @ must broadcast, got shapes {x.shape} and {w.shape}"
            ) from None
    shape = (*leading, x.shape[-2], w.shape[-1])
    session, addends = x.session, x.shape[-1]
    x, w = _in_format(x, w, "@", addends)
    frac_bits = x.frac_bits + w.frac_bits
    bound = x.bound * w.bound * max(1, addends)
    bound = linear.settled(
        x, "@", bound, frac_bits, (x, w), operator.matmul, addends,
        lambda: (range_check.bilinear(x, w, matmul, addends),),
    )  # fmt: skip
    pair = session.pair
    with session.protocol("product"):
        if pair is not None:
            if own is None:
                z = own_products.matmul(session, pair, x, w, shape)
            else:
                z = own(pair).reshape(len(session.here), *shape)
            return x.derive(z, frac_bits=frac_bits, bound=bound)
        refs, factors = _factors(x, w)
        z = np.zeros((len(session.here), *shape), np.uint64)
        for row, left, right in factors:
            matmul_add(left, right, z[row])
        cross_term = ProductTerm("matmul", *refs, shape)
        return x.derive(z, frac_bits=frac_bits, bound=bound, cross_term=cross_term)


def grouped(x: Secret, w: Secret) -> Secret:
    """Product of each matrix of a stack x (g, m, k) with that of w (g, k, n), side by side: (m, g n).

    At the cost of :func:`matmul`; without a provider it is a product of stacks.
    """
    if x.ndim != 3 or w.ndim != 3 or (x.shape[0], x.shape[2]) != w.shape[:2]:
        raise ShapeError(f"stacks of matrices must fit together, got {x.shape} and {w.shape}")
    (groups, m, addends), n = x.shape, w.shape[2]
    session, shape = x.session, (m, groups * n)
    x, w = _in_format(x, w, "@", addends)
    frac_bits = x.frac_bits + w.frac_bits

    def exact(a: NDArray[Any], b: NDArray[Any]) -> Any:
        return (a @ b).transpose(1, 0, 2).reshape(shape)

    bound = linear.settled(
        x, "@", x.bound * w.bound * max(1, addends), frac_bits, (x, w), exact, addends,
        lambda: (range_check.bilinear(x, w, grouped, addends),),
    )  # fmt: skip
    pair = session.pair
    with session.protocol("product"):
        if pair is not None:
            z = own_products.matmul(session, pair, x, w, (groups, m, n))
            z = z.transpose(0, 2, 1, 3).reshape(len(z), *shape)
            return x.derive(z, frac_bits=frac_bits, bound=bound)
        refs, factors = _factors(x, w)
        z = np.zeros((len(session.here), *shape), np.uint64)
        for row, left, right in factors:
            z[row] += _grouped(left, right)
        cross_term = ProductTerm("grouped", *refs, shape)
        return x.derive(z, frac_bits=frac_bits, bound=bound, cross_term=cross_term)
