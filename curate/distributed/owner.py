"""A part of the kept set, as it lies in one process of a cluster: rows that are read as a whole, and lists of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.distributed.parts import Best, Part, Query, Rough, joined
from curate.neighbors.centres import Centres
from curate.neighbors.flat import search_tiles
from curate.neighbors.pages import KNOWN, SIGMAS, Pages
from curate.neighbors.products import WholeTiles
from curate_kernels.arrays import B1, F32, I32, I64
from curate_kernels.kept import near_lists, pair_inner, rough_best
from curate_kernels.search import U16, Asked, Kept

_BLOCK = 1024


class _Rows:
    """Rows in order of their numbers, with room to grow."""

    def __init__(self, width: int, beside: int) -> None:
        self.size = 0
        self.longest = 0.0
        self.tiles = WholeTiles()
        self._part = Part.blank(np.zeros(0, dtype=np.int64), width, beside)

    @property
    def part(self) -> Part:
        return self._part.at(slice(self.size))

    def put(self, part: Part) -> None:
        start, self.size = self.size, self.size + part.numbers.size
        room = self._part.numbers.size
        if self.size > room:
            grown = max(self.size, room + room // 8)
            for array in self._part:
                array.resize((grown, *array.shape[1:]), refcheck=False)
        self._part.numbers[start : self.size] = part.numbers
        self._part.write(slice(start, self.size), part)
        for first in range(0, part.numbers.size, _BLOCK):
            whole = part.rows[first : first + _BLOCK].view(np.float16).astype(np.float32)
            length = float(np.sqrt(np.einsum("ij,ij->i", whole, whole).max(initial=0.0))) * 1.0001
            self.longest = max(self.longest, length)

    def kept(self, need: int) -> Kept:
        return Kept(self.part.rows, self.part.captions, self.part.flags, need)

    def at(self, numbers: I64) -> tuple[I64, B1]:
        """Return where numbers lie, and which are here at all."""
        own = self.part.numbers
        where = np.searchsorted(own, numbers)
        here: B1 = np.zeros(numbers.size, dtype=np.bool_)
        here[where < own.size] = own[where[where < own.size]] == numbers[where < own.size]
        return where, here

    def twin(self, ask: Asked) -> I64:
        """Return the number of each query's twin, -1 for none."""
        out = np.full(ask.twin_row.shape, -1, dtype=np.int64)
        found = ask.twin_row >= 0
        out[found] = self.part.numbers[ask.twin_row[found]]
        return out


class Owner:
    """Rows by number: those in no list yet, and those in the lists that are this owner's, numbered from 0 here."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._width = self._beside = 0
        self._raw = self._listed = _Rows(0, 0)
        self._pages: Pages | None = None
        self._near: I32 = np.zeros(0, dtype=np.int32)

    def widen(self, width: int, beside: int) -> None:
        """Have room for rows and captions of these widths: captions may begin to appear at any time."""
        self._width, self._beside = width, beside
        for name in ("_raw", "_listed"):
            old = getattr(self, name).part
            setattr(self, name, _Rows(width, beside))
            getattr(self, name).put(old.wider(width, beside))

    def put(self, part: Part) -> None:
        """Take rows in, with higher numbers than all before."""
        self._raw.put(part)

    def drop(self, numbers: I64) -> None:
        """Never return rows again."""
        for rows in (self._raw, self._listed):
            where, here = rows.at(numbers)
            rows.part.flags[where[here]] = 0

    def renumber(self, alive: I64) -> None:
        """Keep these rows only, and number them from 0 in this order; all are in no list."""
        merged = joined([self._listed.part, self._raw.part])
        new = np.searchsorted(alive, merged.numbers)
        stay = new < alive.size
        stay[stay] = alive[new[stay]] == merged.numbers[stay]
        self._hold(merged._replace(numbers=new).at(stay))

    def forget(self) -> None:
        """Let no row be in a list."""
        if self._pages is not None:
            self._hold(joined([self._listed.part, self._raw.part]))

    def take(self, numbers: I64) -> Part:
        """Return rows by number."""
        out = Part.blank(numbers, self._width, self._beside)
        for rows in (self._raw, self._listed):
            where, here = rows.at(numbers)
            out.write(here, rows.part.at(where[here]))
        return out

    def cut(self, first: int) -> None:
        """Let rows in no list go that have lower numbers."""
        part = self._raw.part
        self._raw = _Rows(self._width, self._beside)
        self._raw.put(part.at(part.numbers >= first))

    # Lists

    def nearest(self, centres: F32, size: int, need: int) -> I32:
        """Return the list that each usable row of a lower number than `size` is nearest to, in order; and note it."""
        part, known = self._usable(size, need), Centres(centres)
        starts = range(0, part.numbers.size, _BLOCK)
        near = [known.nearest(part.rows[start : start + _BLOCK])[0] for start in starts]
        self._near = np.concatenate(near).astype(np.int32) if near else np.zeros(0, dtype=np.int32)
        return self._near

    def split(self, size: int, need: int, where: tuple[I32, I32], count: int) -> Any:
        """Return the rows that were told their list by the owner that each goes to, with the list's number there.

        where: owner of each list, and its number with it; a single owner gets its rows as they are, no list of one
        """
        part, near = self._usable(size, need), self._near
        owner, local = where
        out = [(part.at(owner[near] == to), local[near[owner[near] == to]]) for to in range(count)]
        return out if count > 1 else out[0]

    def receive(self, size: int, centres: F32, *parts: tuple[Part, I32]) -> None:
        """Take in lists with their rows; of the rows in no list those from `size` on stay."""
        self.cut(size)
        merged = joined([part for part, _ in parts])
        order = np.argsort(np.concatenate([part.numbers for part, _ in parts]), kind="stable")
        at = np.concatenate([local for _, local in parts])[order]
        self._pages = Pages(centres.shape[1])
        self._pages.put(0, centres)
        self._listed = _Rows(self._width, self._beside)
        self._listed.put(merged)
        self._pages.append(self._listed.part.rows, np.arange(merged.numbers.size), at.astype(np.int64))

    def join(self, part: Part, at: I64, first: int, centres: F32) -> None:
        """Let rows join lists; centres: of new lists, from number `first` on."""
        assert self._pages is not None
        start = self._listed.size
        self._listed.put(part)
        self._pages.put(first, centres)
        self._pages.append(self._listed.part.rows, np.arange(start, self._listed.size), at.copy())

    def halve(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[F32, tuple[int, int]]]:
        """Halve lists; of each the other half gets the second number."""
        assert self._pages is not None
        return [self._pages.halve(self._listed.part.rows, c, fresh) for c, fresh in pairs]

    # Searches

    def search(self, query: Query) -> Best:
        """Search the rows in no list exactly."""
        ask, raw = query.ask(), self._raw
        search_tiles(raw.kept(query.need), raw.longest, ask, 0, raw.size, raw.tiles)
        return Best(ask.best, ask.twin_sim, raw.twin(ask))

    def rough(self, query: Query, visits: I64) -> Rough:
        """Return the rows of lists that are near by estimate; visits: list times b plus query, ascending."""
        assert self._pages is not None
        ask, kept = query.ask(), self._listed.kept(query.need)
        b = ask.queries.shape[0]
        rough = np.full((b, KNOWN), -np.inf, dtype=np.float32)
        row = np.full((b, KNOWN), -1, dtype=np.int64)
        rough_best(*np.divmod(visits, b), ask, kept, self._pages.coded(), query.turn(), rough, row)
        i, place = np.nonzero(row >= 0)
        sims = np.full(row.shape, -np.inf, dtype=np.float32)
        same = np.zeros(row.shape, dtype=np.bool_)
        sims[i, place] = _inner(i, row[i, place], ask.queries, kept.rows)
        same[i, place] = self._same_caption(i, row[i, place], ask, kept)
        numbers = np.where(row >= 0, self._listed.part.numbers[row], -1) if self._listed.size else row
        return Rough(rough, numbers, sims, same)

    def near(self, query: Query, visits: I64, known: I64, bar: F32) -> Best:
        """Search lists; known: (b, c) rows that are found already, by number, wherever; bar: see `near_lists`."""
        assert self._pages is not None
        ask, rows = query.ask(), self._listed
        b = ask.queries.shape[0]
        where, here = rows.at(known.reshape(-1))
        skip = np.where(here, where, -1).reshape(known.shape)
        kept, lists = rows.kept(query.need), self._pages.coded()
        near_lists(*np.divmod(visits, b), skip, bar.copy(), SIGMAS, ask, kept, lists, query.turn())
        return Best(ask.best, ask.twin_sim, rows.twin(ask))

    def pairs(self, i: I64, numbers: I64, queries: F32, captions: bool) -> F32:
        """Return the similarity of query i and the row of a number, or of their captions."""
        out = np.zeros(i.size, dtype=np.float32)
        for rows in (self._raw, self._listed):
            where, here = rows.at(numbers)
            part = rows.part
            out[here] = _inner(i[here], where[here], queries.copy(), part.captions if captions else part.rows)
        return out

    def _same_caption(self, i: I64, row: I64, ask: Asked, kept: Kept) -> B1:
        same: B1 = np.ones(i.size, dtype=np.bool_)
        if ask.least[1] > -1.0:
            same = ~ask.captioned[i] | (kept.flags[row] & 2 > 0)
            check = np.flatnonzero(same & ask.captioned[i])
            same[check] = _inner(i[check], row[check], ask.captions, kept.captions) >= ask.least[1]
        return same

    def _usable(self, size: int, need: int) -> Part:
        part = self._raw.part
        return part.at((part.numbers < size) & (part.flags & need == need))

    def _hold(self, part: Part) -> None:
        self._raw, self._listed = _Rows(self._width, self._beside), _Rows(self._width, self._beside)
        self._raw.put(part)
        self._pages = None


def _inner(i: I64, at: I64, queries: F32, rows: U16) -> F32:
    sim = np.empty(i.size, dtype=np.float32)
    pair_inner(i, at, queries, rows, sim)
    return sim
