"""Fields of MDS and LitData samples that are metadata: text, numbers and JSON. Nothing is unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from struct import unpack


def decode_value(encoding: str, data: bytes) -> object:
    """Return the value of a field whose encoding is one of DECODERS, None if its bytes are no such."""
    try:
        return DECODERS[encoding](data)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _number(form: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        if len(data) != _SIZES[form[-1]]:
            raise ValueError
        (value,) = unpack(form, data)
        return value if not isinstance(value, float) or math.isfinite(value) else None

    return read


_SIZES = {"b": 1, "h": 2, "i": 4, "q": 8, "B": 1, "H": 2, "I": 4, "Q": 8, "e": 2, "f": 4, "d": 8, "?": 1}
_NUMBERS = {
    "int": "<q", "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q", "uint8": "<B", "uint16": "<H",
    "uint32": "<I", "uint64": "<Q", "float16": "<e", "float32": "<f", "float64": "<d", "float": "<d", "bool": "<?",
}  # fmt: skip
DECODERS: dict[str, Callable[[bytes], object]] = {
    **{name: _number(form) for name, form in _NUMBERS.items()},
    **dict.fromkeys(("str", "str_int", "str_float", "str_decimal"), lambda data: data.decode()),
    "json": json.loads,
}
