"""The bytes that parties send in a round, from the shapes of its messages."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from mpc.core.correlation import Opening
from mpc.core.frames import framing

__all__ = ["bytes_of_frames", "bytes_of_opening_to", "bytes_of_round"]


@lru_cache(maxsize=1024)
def bytes_of_round(
    messages: tuple[tuple[tuple[int, ...], Opening], ...], parties: int, receivers: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bytes that each party sends in a round of messages (shape, opening): words, framing.

    What a party sends goes to so many receivers: what watched parties open, to all but their watchers.
    """
    frames = [
        [shape for shape, opening in messages if opening in ("sum", "xor", party)]
        for party in range(parties)
    ]
    return bytes_of_frames(frames, receivers)


@lru_cache(maxsize=1024)
def bytes_of_opening_to(
    senders: tuple[int, ...], shape: tuple[int, ...], parties: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bytes that each party sends to open an array to one party: words, framing.

    `senders` has each party as often as it sends.
    """
    words, frames = bytes_of_frames([[shape]] * parties, 1)
    times = [senders.count(p) for p in range(parties)]
    return (
        tuple(k * size for k, size in zip(times, words, strict=True)),
        tuple(k * size for k, size in zip(times, frames, strict=True)),
    )


def bytes_of_frames(
    frames: list[list[tuple[int, ...]]], receivers: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bytes (words, framing) that each party sends if its frame goes to `receivers` parties.

    A frame is a list of shapes; a party with an empty one sends nothing.
    """
    contents = [[(len(shape), 8 * prod(shape)) for shape in frame] for frame in frames]
    return (
        tuple(receivers * sum(size for _, size in content) for content in contents),
        tuple(receivers * framing(content) if content else 0 for content in contents),
    )
