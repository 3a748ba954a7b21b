"""Whether a record batch of Arrow is compressed, which pyarrow does not expose.

A message's metadata is a table of FlatBuffers: an offset to a table of offsets to its fields, in
the order of Arrow's ``Message.fbs``.
"""

from __future__ import annotations

import struct

__all__ = ["is_compressed"]

_HEADER, _COMPRESSION = 2, 3


def is_compressed(metadata: bytes) -> bool:
    """Return whether the record batch of a message has compressed buffers.

    Raises
    ------
    ValueError
        If the metadata is malformed.
    """
    try:
        (message,) = struct.unpack_from("<I", metadata, 0)
        header = _field(metadata, message, _HEADER)
        if header is None:
            raise ValueError("a message without a header")
        batch = header + struct.unpack_from("<I", metadata, header)[0]
        return _field(metadata, batch, _COMPRESSION) is not None
    except struct.error:
        raise ValueError("no metadata of a message") from None


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return the offset of a field of a table, None if the table lacks it."""
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - back
    if fields < 0:
        raise ValueError("a table of fields before the beginning")
    (size,) = struct.unpack_from("<H", data, fields)
    at = 4 + 2 * number
    if at + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + at)
    return table + offset if offset else None
