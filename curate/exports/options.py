"""What a caller may set about an export."""

from __future__ import annotations

import re
from dataclasses import dataclass

from curate.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_LARGEST = 2 * 10**9  # offsets inside an MDS or LitData shard have 32 bits


@dataclass(frozen=True, slots=True)
class Options:
    """Settings that change what is written; each format takes some of them.

    `repeats`: a row is written as often as its weight says; `rounding` ("stochastic", with `seed`): weights may be
    fractions; `shard_size`: bytes of images after which the next shard begins; `copy`: images that are no files of
    their own are written out beside the list.
    """

    repeats: bool = False
    rounding: str = ""
    seed: int | None = None
    shard_size: int | None = None
    copy: bool = True

    def __post_init__(self) -> None:
        if self.rounding not in ("", "stochastic"):
            raise UsageError(f"rounding {self.rounding!r} is unknown; there is: stochastic")
        if bool(self.rounding) != (self.seed is not None):
            raise UsageError("stochastic rounding and a seed belong together: give both or neither")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"the seed {self.seed} is negative")


def parse_size(size: int | str | None) -> int | None:
    """Return bytes of "64MB" (10⁶ bytes each) or of a number. Raises UsageError outside 1 kB to 2 GB."""
    if isinstance(size, str):
        found = _SIZE.fullmatch(size.strip())
        if found is None:
            raise UsageError(f"the shard size {size!r} is not understood; write 64MB or 1GB")
        size = int(float(found[1]) * _UNITS[found[2].lower()])
    if size is not None and not 1000 <= size <= _LARGEST:
        raise UsageError(f"a shard size of {size} bytes is out of range: 1kB to 2GB")
    return size
