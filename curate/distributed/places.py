"""Where the rows of one side of the kept set lie: the newest here, all others with owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from curate.distributed.parts import Part, joined
from curate.distributed.team import Team
from curate.neighbors.coarse import BLOCK
from curate_kernels.arrays import F32, I64
from curate_kernels.kept import pair_inner
from curate_kernels.search import Asked


class Places:
    """Rows by number; those from number `sent` on are here, a block or two. Where a row lies takes 2 bytes here."""

    def __init__(self, team: Callable[[], Team]) -> None:
        """team: makes the owners, or returns those there are, when the first block is sent."""
        self._make = team
        self._made: Team | None = None
        self.width = self.beside = 0  # of rows, and of the captions beside them
        self.sent = 0
        self.load: I64 = np.zeros(0, dtype=np.int64)  # rows sent to each owner
        self.owner: Any = np.zeros(0, dtype=np.int16)  # of each row, -1: none, as it is here or nobody needs it
        self._tail: list[Part] = []

    @property
    def team(self) -> Team:
        """The owners."""
        if self._made is None:
            self._made = self._make()
            self.load = np.zeros(len(self._made), dtype=np.int64)
            self._made.tell_all("widen", self.width, self.beside)
        return self._made

    @property
    def is_alone(self) -> bool:
        """Whether all rows are here."""
        return self._made is None

    def here(self) -> Part:
        """Return the rows that are here; their flags may be changed."""
        if len(self._tail) != 1:
            none = Part.blank(np.zeros(0, dtype=np.int64), self.width, self.beside)
            self._tail = [joined(self._tail or [none])]
        return self._tail[0]

    def widen(self, width: int, beside: int) -> None:
        """Have room for rows and captions of at least these widths."""
        if width <= self.width and beside <= self.beside:
            return
        tail = self.here()
        self.width, self.beside = max(width, self.width), max(beside, self.beside)
        self._tail = [tail.wider(self.width, self.beside)]
        if self._made is not None:
            self._made.tell_all("widen", self.width, self.beside)

    def put(self, part: Part) -> None:
        """Take rows in, with the numbers that come next."""
        self._tail.append(part)
        stop = int(part.numbers[-1]) + 1
        if stop > self.owner.size:
            self.owner.resize(max(stop, self.owner.size + self.owner.size // 8), refcheck=False)
        self.owner[part.numbers] = -1

    def drop(self, numbers: I64) -> None:
        """Keep rows no more."""
        self.here().flags[numbers[numbers >= self.sent] - self.sent] = 0
        away = numbers[numbers < self.sent]
        for owner, which in self._by_owner(away):
            self.team.tell(owner, "drop", away[which])

    def send(self, stop: int) -> None:
        """Send the rows before `stop` that are here to owners, in blocks, each to the one that has the fewest."""
        for start in range(self.sent, stop if self.width else 0, BLOCK):  # no width: captions of which there are none
            part = self.here().at(slice(start - self.sent, min(start + BLOCK, stop) - self.sent))
            team = self.team
            owner = int(np.argmin(self.load))
            team.tell(owner, "put", part)
            self.load[owner] += part.numbers.size
            self.owner[part.numbers] = owner
        self.let_go(stop)

    def let_go(self, stop: int) -> None:
        """Have the rows before `stop` here no more."""
        if stop > self.sent:
            self._tail = [self.here().map(lambda array: array[stop - self.sent :].copy())]
            self.sent = stop

    def renumber(self, alive: I64) -> None:
        """Keep these rows only, and number them from 0 in this order."""
        tail, here = self.here(), alive[alive >= self.sent]
        if self._made is not None:
            self._made.tell_all("renumber", self._made.put(alive))
        kept = tail.at(here - self.sent)
        self.sent = alive.size - here.size
        self._tail = [kept._replace(numbers=np.arange(self.sent, alive.size))]
        self.owner = self.owner[alive]

    def fetch(self, numbers: I64) -> Part:
        """Return rows by number, wherever they are."""
        out = Part.blank(numbers, self.width, self.beside)
        here = numbers >= self.sent
        out.write(here, self.here().at(numbers[here] - self.sent))
        away = np.flatnonzero(~here)
        groups = [(owner, away[which]) for owner, which in self._by_owner(numbers[away])]
        refs = [self.team.ask(owner, "take", numbers[own]) for owner, own in groups]
        for (_, own), part in zip(groups, self.answers(refs), strict=True):
            out.write(own, part)
        return out

    def pairs(self, i: I64, numbers: I64, ask: Asked, captions: bool) -> F32:
        """Return the similarities (p,) of queries i and rows, or of their captions, as a search computes them."""
        out = np.zeros(i.size, dtype=np.float32)
        queries, tail = ask.captions if captions else ask.queries, self.here()
        here = np.flatnonzero(numbers >= self.sent)
        sims = np.empty(here.size, dtype=np.float32)
        pair_inner(i[here], numbers[here] - self.sent, queries, tail.captions if captions else tail.rows, sims)
        out[here] = sims
        away = np.flatnonzero(numbers < self.sent)
        groups = [(owner, away[which]) for owner, which in self._by_owner(numbers[away])]
        refs = []
        for owner, own in groups:
            used, place = np.unique(i[own], return_inverse=True)
            refs.append(self.team.ask(owner, "pairs", place, numbers[own], queries[used], captions))
        for (_, own), found in zip(groups, self.answers(refs), strict=True):
            out[own] = found
        return out

    def answers(self, refs: Sequence[Any]) -> list[Any]:
        """Return the owners' answers. Raises LostError."""
        return self._made.answers(refs) if self._made is not None else []

    def _by_owner(self, numbers: I64) -> Iterator[tuple[int, I64]]:
        """Yield each owner of some of the rows, with where these are among them."""
        owner = self.owner[numbers]
        for one in np.unique(owner[owner >= 0]).tolist():
            yield one, np.flatnonzero(owner == one)
