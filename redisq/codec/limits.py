"""How large a message may be: checked on its bytes, before it is sent and before a worker decodes it.

A few bytes can ask for much: 10 MB of nil become 100 MiB of Python, and a thousand nested lists exhaust a stack.
"""

from __future__ import annotations

from redisq.errors import MessageTooLarge

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_ELEMENTS", "check_limits"]

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 100_000

# Bytes that can begin a list or a map: fixmap, fixarray, array 16/32, map 16/32.
_NOT_CONTAINER = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))

# Head byte -> bytes that follow it, for values of a fixed size.
_FIXED = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
# Head byte -> (bytes of the length that follows, bytes beside the length): bin, ext, str.
_SIZED = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
# Head byte of an extension type -> bytes between it and the type's number, which is 7 for a tuple.
_TUPLE_AFTER = {0xD4: 0, 0xD5: 0, 0xD6: 0, 0xD7: 0, 0xD8: 0, 0xC7: 1, 0xC8: 2, 0xC9: 4}
# Head byte -> (bytes of the count that follows, values for each counted).
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def check_limits(body: bytes, max_bytes: int = MAX_BYTES) -> None:
    """Accept msgpack bytes that are small enough. Whether they read is for the decoder to say.

    Raises:
        MessageTooLarge: Too many bytes, levels or elements.
    """
    if len(body) > max_bytes:
        raise MessageTooLarge(f"{len(body)} bytes, more than {max_bytes}: keep large things elsewhere and send where they are")
    if len(body) <= MAX_DEPTH:
        return
    # The usual message holds so few bytes that could begin a list or a map that it cannot be too deep; text that is not
    # ASCII has such bytes too, so more than that only means: look closely.
    if len(body) > MAX_ELEMENTS or len(body.translate(None, _NOT_CONTAINER)) > MAX_DEPTH:
        _walk(body)


def _walk(body: bytes) -> None:
    """Go over the values without building them."""
    at, end, elements = 0, len(body), 0
    open_: list[int] = []  # values still to come, for each open list or map
    while at < end:
        head = body[at]
        at += 1
        elements += 1
        children = 0
        if head <= 0x7F or head >= 0xE0:
            pass
        elif head <= 0x8F:
            children = (head & 0x0F) * 2
        elif head <= 0x9F:
            children = head & 0x0F
        elif head <= 0xBF:
            at += head & 0x1F
        elif head in _TUPLE_AFTER and body[at + _TUPLE_AFTER[head] : at + _TUPLE_AFTER[head] + 1] == b"\x07":
            # A tuple: what is in it is looked at as if it stood here.
            at += _TUPLE_AFTER[head] + 1
            children = 1
        elif head in _FIXED:
            at += _FIXED[head]
        elif head in _SIZED:
            width, beside = _SIZED[head]
            at += width + beside + int.from_bytes(body[at : at + width], "big")
        elif head in _COUNTED:
            width, each = _COUNTED[head]
            children = each * int.from_bytes(body[at : at + width], "big")
            at += width
        if elements + children > MAX_ELEMENTS:
            raise MessageTooLarge(f"more than {MAX_ELEMENTS} elements")
        while open_ and open_[-1] == 0:
            open_.pop()
        if open_:
            open_[-1] -= 1
        if children:
            open_.append(children)
            if len(open_) > MAX_DEPTH:
                raise MessageTooLarge(f"nested more than {MAX_DEPTH} levels deep")
