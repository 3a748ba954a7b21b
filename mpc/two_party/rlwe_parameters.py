"""Parameters of ring-LWE encryption: sizes, what they are worth, and which bounds they allow.

Polynomials have N = 8192 coefficients. The plaintext modulus is 2^64, the modulus q a product of primes
below 2^48 that are 1 modulo 2N. Secrets are uniform in -1, 0, 1 and errors centred binomial: the
difference of the number of ones in 21 bits and in 21 more.

**Security.** For ternary secrets and errors of standard deviation 3.19 at N = 8192, 128 bits against
classical attacks hold up to log2 q = 214 (Bossuat and others, Security Guidelines for Implementing
Homomorphic Encryption, ePrint 2024/463, table 5.2), or 218 (Homomorphic Encryption Standard, 2018). Here
errors have 3.24, and q at most 210 bits. The tables count an attack with blocks of b at
2^(0.292 b + 16.4) operations for each of 8 d calls, d being the lattice's dimension; a test estimates
the plainest attack in the same way, and finds 158, 147 and 133 bits. Its exponent 0.292 b alone
is 125, 114 and 100. Nothing is claimed about quantum attacks.

**What an answer hides.** The keeper, who holds the secret key, sees the noise of an answer: it
depends on the other party's operand, but is covered by a flood, uniform in 2^F values. For an operand
whose coefficients in one answer sum up to S in magnitude, the noise of a coefficient is at most

    (21 + 1/2) S + 2 * 21 N + 1

from the errors and roundings of fresh ciphertexts, the public key's error and the fresh error of the
answer, and the rounding of the mask. So the statistical distance of what the keeper sees from the same
without noise, where nothing depends on the operand but the result, is at most this over 2^F, times the
number of coefficients that are answered in the operand's life. It must be at most 2^-40.

**What is right.** An answer is switched to the modulus 2^76, a word and twelve bits, and rounds right while
all noise is below 2^11 there. The flood takes 2^9. What else there is, is the rounding of the second
component times the secret: a sum of N numbers in [-1/2, 1/2] that have nothing to do with the
secret; by Hoeffding's inequality it exceeds 1500 with probability below 2^-790.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, cached_property
from math import log2

from mpc.core.errors import RangeError
from ring.ntt import Transform
from ring.residue_numbers import SWITCHED_BITS, ResidueNumbers
from ring.residues import largest_primes

__all__ = [
    "DISTANCE_BITS",
    "ERROR_BITS",
    "LARGEST_ERROR",
    "LENGTH",
    "MESSAGE_BITS",
    "PARAMETERS",
    "SECURITY_LIMITS",
    "Parameters",
    "choose_parameters",
    "decoding_numbers",
    "decoding_transform",
    "noise_bound",
]

LENGTH = 8192
MESSAGE_BITS = 64
ERROR_BITS = 42
LARGEST_ERROR = ERROR_BITS // 2
DISTANCE_BITS = 40
# The flood takes so much of what is left between two messages that 2^9 of 2^11 are its own.
_ROOM_BITS = 66

SECURITY_LIMITS = {
    "ePrint 2024/463, table 5.2: ternary, classical, 128 bits": 214,
    "Homomorphic Encryption Standard 2018: ternary, classical, 128 bits": 218,
}
"""The largest log2 q at N = 8192, by source."""


def noise_bound(total: int) -> Fraction:
    """Return the largest noise of a coefficient of an answer, before the flood.

    Parameters
    ----------
    total : int
        Bound on the sum of the magnitudes of all the coefficients that ciphertexts are multiplied
        with for one answer.
    """
    return (LARGEST_ERROR + Fraction(1, 2)) * total + 2 * LARGEST_ERROR * LENGTH + 1


@dataclass(frozen=True)
class Parameters:
    """One modulus q.

    Attributes
    ----------
    name : str
    prime_bits, count : int
        q is the product of so many primes, the largest ones of so many bits.
    """

    name: str
    prime_bits: int
    count: int
    security_bits: int = field(default=128, init=False)

    @property
    def flood_bits(self) -> int:
        """F: the flood is uniform in 2^F values."""
        return self.prime_bits * self.count - _ROOM_BITS

    @cached_property
    def numbers(self) -> ResidueNumbers:
        return ResidueNumbers(largest_primes(self.prime_bits, self.count, LENGTH))

    @cached_property
    def transform(self) -> Transform:
        return Transform(self.numbers.primes, LENGTH)

    @cached_property
    def largest_correction(self) -> int:
        """The largest magnitude of what corrects a random string to a ciphertext."""
        return self.numbers.q // 2 ** (MESSAGE_BITS + 1) + LARGEST_ERROR + 2

    @cached_property
    def correction_widths(self) -> tuple[int, ...]:
        """Bits of each digit of a correction; the last one is signed."""
        widths: list[int] = []
        product = 1
        for p in self.numbers.primes:
            # A digit more or less for the remainder, and the sign.
            top = (self.largest_correction // product + 1).bit_length() + 1
            if top < self.prime_bits:
                return (*widths, top)
            widths.append(self.prime_bits)
            product *= p
        raise AssertionError("a correction is below q / 2^64")

    @property
    def ciphertext_bits(self) -> int:
        """Bits of a coefficient of a ciphertext on the wire; its other component is a seed."""
        return self.prime_bits * self.count

    def distance(self, total: int, coefficients: int) -> Fraction:
        """Return the statistical distance of what a keeper sees of an operand; see the module."""
        return coefficients * noise_bound(total) / 2**self.flood_bits

    def allows(self, total: int, coefficients: int) -> bool:
        """Whether an operand of this sum may be answered from, for so many coefficients in all."""
        return self.distance(total, coefficients) <= Fraction(1, 2**DISTANCE_BITS)

    def check(self, total: int, coefficients: int) -> None:
        """Refuse bounds that break the rule.

        Raises
        ------
        RangeError
            Naming both bounds and the distance.
        """
        if not self.allows(total, coefficients):
            raise RangeError(
                f"parameters {self.name} flood {self.flood_bits} bits: an operand whose coefficients sum up"
                f" to 2^{log2(max(1, total)):.1f} in an answer, and {coefficients} coefficients answered,"
                f" would show by 2^{log2(self.distance(total, coefficients)):.1f}, above"
                f" 2^-{DISTANCE_BITS}; declare tighter bounds, or a shorter life of the operand"
            )


PARAMETERS = (Parameters("q180", 45, 4), Parameters("q192", 48, 4), Parameters("q210", 42, 5))
"""All that there are, the cheapest first."""


def choose_parameters(total: int, coefficients: int) -> Parameters:
    """Return the cheapest parameters that allow an operand.

    Parameters
    ----------
    total : int
        As for :func:`noise_bound`.
    coefficients : int
        How many coefficients are answered in the operand's life.

    Raises
    ------
    RangeError
        If none do.
    """
    for parameters in PARAMETERS:
        if parameters.allows(total, coefficients):
            return parameters
    PARAMETERS[-1].check(total, coefficients)
    raise AssertionError("the last ones do not allow it")


@cache
def decoding_numbers() -> ResidueNumbers:
    """Return the primes in which answers are decrypted: |c s| < 2^75 N = 2^88 is below their product."""
    bits = SWITCHED_BITS - 1 + LENGTH.bit_length() - 1
    return ResidueNumbers(largest_primes(48, -(-(bits + 2) // 48), LENGTH))


@cache
def decoding_transform() -> Transform:
    return Transform(decoding_numbers().primes, LENGTH)
