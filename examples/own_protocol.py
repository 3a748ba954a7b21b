"""A protocol of one's own: the cube of secret whole numbers in one round instead of two.

python examples/own_protocol.py
    prints cubes, and what they cost beside two products.

1. Open D = x - a, a being the mask of x.
2. The provider deals shares of a^2 and a^3.
3. x^3 = (D + a)^3 = D^3 + 3 D^2 a + 3 D a^2 + a^3, of which each party computes its share.
Cost: 1 round, 8 (n - 1) bytes an element; correction 16 bytes an element.
A provider in a process of its own must import this file, too: it deals what it knows the class of.
"""

from dataclasses import dataclass

import numpy as np

import mpc
from mpc.core.correlation import Correlation, MaskRef, Part
from mpc.protocols.masking import mask_together


@dataclass(frozen=True)
class Powers(Correlation):
    """What the provider deals: sizes and a reference to a mask, never data."""

    a: MaskRef
    size: int

    def corrected(self):
        """Two arrays of which the provider sends the last party's share."""
        return (Part((2, self.size)),)

    def check(self, limit):
        """Refuse what does not fit together, as a peer could ask for it."""
        super().check(limit)
        if np.prod(self.a.check(limit), dtype=int) != self.size:
            raise mpc.ShapeError(f"the mask must have {self.size} elements, got {self.a}")

    def deal(self, provider, masks, out):
        """Step 2, in the provider: `out` has the sum of the other parties' shares."""
        a = provider.mask(self.a).reshape(-1)
        out[0][:] = np.stack([a * a, a * a * a]) - out[0]


def cube(x):
    """Return x^3."""
    session = x.session
    if x.frac_bits or x.bound**3 >= 1 << 62:
        raise mpc.RangeError(f"cube takes whole numbers of less than 21 bits, got {x}")
    with session.protocol("cube"):
        (mask,) = mask_together(x)  # step 1
        powers = Powers(mask.ref, x.size)
        (shares,) = session.correlated(powers).corrected
        d = mask.delta.reshape(len(mask.delta), x.size)  # no row if nobody is here, in a plan
        out = 3 * d * shares[:, 0] + shares[:, 1]
        for row, a in zip(mask.rows, mask.shares, strict=True):  # parties that have a share of a
            out[row] += 3 * d[0] * d[0] * a.reshape(-1)
        if session.first_row is not None:  # one party alone adds what is public
            out[session.first_row] += d[0] ** 3
        return x.derive(out.reshape(len(out), *x.shape), frac_bits=0, bound=x.bound**3)


if __name__ == "__main__":
    for name, function in (("cube", cube), ("two products", lambda x: x * x * x)):
        with mpc.Session() as session:
            x = session.share([-7, 0, 12, 1000], owner="alice", dtype=int, bound=1000)
            print(f"{name}: {function(x).reveal()}")
            print(session.cost())
