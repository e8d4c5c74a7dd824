"""The kept set over the machines of a cluster: the same answers as in one process, to the bit.

Hashes, uids and flags stay with the driver, and so do the centres of the lists; rows lie with owners. Blocks of rows
that are in no list yet go to the owners in turn and are searched by all. A list lies with one owner, with its rows. A
query goes to the owners of the lists that it reads, twice: the best rows by estimate of all of them set the bar that
every other row must pass. What a search gives is the best of what its parts give, wherever these lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from curate.distributed.parts import Best, Part, Query, Rough, best_known, enter
from curate.distributed.places import Places
from curate.distributed.team import LostError, Team
from curate.neighbors import EXACT, KeptIndex
from curate.neighbors.centres import training_rows
from curate.neighbors.coarse import BLOCK, Coarse
from curate.neighbors.flat import search_tiles
from curate.neighbors.pages import KNOWN
from curate.neighbors.products import WholeTiles
from curate_kernels.arrays import B1, F32, I32, I64, U8
from curate_kernels.kept import weigh_known
from curate_kernels.search import U16, Asked, Kept

__all__ = ["LostError", "Owners", "RemoteSide"]


class Owners:
    """Makes indexes whose rows lie on a cluster, one at a time: the next one takes over the processes of the last."""

    def __init__(self, ray: Any, count: int | None = None) -> None:
        """count: owners of a side, None: one for each machine."""
        self._ray = ray
        self._count = count or max(1, sum(node["Alive"] for node in ray.nodes()))
        self._teams: dict[str, Team] = {}

    def index(self, memory_gb: float = float("inf"), exact: int = EXACT) -> KeptIndex:
        """Return an empty index; memory_gb: of kept rows on each machine; exact: rows up to which all are read."""
        for name, team in list(self._teams.items()):
            if team.lost:
                team.kill()
                del self._teams[name]
            else:
                team.tell_all("clear")
        sides = RemoteSide(lambda: self._team("image"), 1), RemoteSide(lambda: self._team("text"), 3)
        return KeptIndex(memory_gb * self._count, exact, sides)

    def close(self) -> None:
        """End the processes."""
        for team in self._teams.values():
            team.kill()
        self._teams = {}

    def _team(self, name: str) -> Team:
        if name not in self._teams:
            self._teams[name] = Team(self._ray, self._count)
        return self._teams[name]


class RemoteSide:
    """A side of the kept set on a cluster: see `curate.neighbors.side.Side`."""

    captioned = True

    def __init__(self, team: Callable[[], Team], need: int) -> None:
        """team: see `Places`; need: see `Kept`."""
        self._need, self._places = need, Places(team)
        self._coarse: Coarse | None = None
        self._listed = 0  # rows before this one are in lists
        self._owner: I32 = np.zeros(0, dtype=np.int32)  # of each list

    @property
    def rows(self) -> U16:
        """No rows, of the width that those elsewhere have."""
        return np.zeros((0, self._places.width), dtype=np.uint16)

    def reserve(self, rows: int, width: int) -> None:
        """Have rows of at least this width."""
        self._places.widen(width, 0)

    def put(self, start: int, x: F32, captions: F32, captioned: B1) -> None:
        """Set rows start, start + 1, … to x (b, width), with their captions beside, rounded to float16."""
        if not x.shape[0]:
            return
        self._places.widen(0, captions.shape[1])
        rows, beside = (given.astype(np.float16).view(np.uint16) for given in (x, captions))
        part = Part(np.arange(start, start + x.shape[0]), rows, beside, (1 + 2 * captioned).astype(np.uint8))
        self._places.put(part.wider(self._places.width, self._places.beside))
        if self._coarse is None:
            stop = start + x.shape[0]
            self._places.send(stop - stop % BLOCK)

    def drop(self, rows: I64) -> None:
        """Keep rows no more."""
        self._places.drop(rows)

    def compact(self, alive: I64) -> None:
        """Keep these rows only, numbered anew in order, and forget the lists."""
        self._places.renumber(alive)
        self._forget()

    def pairs(self, i: I64, at: I64, ask: Asked, kept: Kept, captions: bool = False) -> F32:
        """Return the similarities (p,) of queries i and rows `at`, or of their captions, as a search computes them."""
        return self._places.pairs(i, at, ask, captions)

    # Lists

    def train(self, size: int, usable: I64) -> None:
        """Make lists anew over the usable among the first `size` rows; of fewer than a block none are made."""
        self._forget()
        if usable.size < BLOCK:
            return
        places = self._places
        places.send(size)
        places.team.tell_all("forget")
        sample = training_rows(usable, Coarse.wanted(usable.size))
        self._coarse = Coarse(places.fetch(sample).rows, np.arange(sample.size), usable.size)
        self._listed = size
        self._deal(self._coarse, size, usable)
        self._halve_long(self._coarse)

    def join(self, size: int, kept: Kept) -> None:
        """Let the rows before `size` join the lists, in whole blocks."""
        places, before = self._places, self._listed
        while self._coarse is not None and size - self._listed >= BLOCK:
            block = np.arange(self._listed, self._listed + BLOCK)
            self._listed += BLOCK
            self._join(self._coarse, block[kept.flags[block] & kept.need == kept.need])
            self._halve_long(self._coarse)
        if before < min(self._listed, places.sent):
            places.team.tell_all("cut", self._listed)
        places.let_go(self._listed)

    def search(self, kept: Kept, size: int, ask: Asked) -> None:
        """Enter the rows before `size` into what was found: exactly, but for those in lists that are not read."""
        places = self._places
        if not places.width:
            return
        turned, chosen = self._coarse.asked(ask.queries) if self._coarse is not None else (None, None)
        least = (float(ask.least[0]), float(ask.least[1]))
        query = Query(ask.queries, ask.captions, ask.captioned, least, ask.best.shape[1], kept.need, turned)
        if places.is_alone:
            enter(ask, self._search_here(query))
            return
        team, shared = places.team, places.team.put(query)
        visits = list(self._visits(chosen)) if chosen is not None else []
        exact = range(len(team)) if self._listed < places.sent else ()
        refs = [team.ask(owner, "search", shared) for owner in exact]
        rough = [team.ask(owner, "rough", shared, first) for owner, _, first in visits]
        enter(ask, self._search_here(query))
        for found in team.answers(refs):
            enter(ask, found)
        if visits:
            self._search_lists(query, shared, visits, team.answers(rough), ask)

    def _search_here(self, query: Query) -> Best:
        ask, tail = query.ask(), self._places.here()
        floats = tail.rows.view(np.float16).astype(np.float32)
        longest = float(np.sqrt(np.einsum("ij,ij->i", floats, floats).max(initial=0.0))) * 1.0001
        local = Kept(tail.rows, tail.captions, tail.flags, query.need)
        search_tiles(local, longest, ask, 0, tail.numbers.size, WholeTiles())
        return Best(ask.best, ask.twin_sim, np.where(ask.twin_row >= 0, ask.twin_row + self._places.sent, -1))

    def _search_lists(
        self, query: Query, shared: Any, visits: Sequence[Any], rough: Sequence[Rough], out: Asked
    ) -> None:
        """Enter what the lists hold. Their bar is set by their own rows alone, as in one process."""
        ask, team = query.ask(), self._places.team
        known = best_known(rough, KNOWN)
        enter(ask, known.best(query.k, query.least[0]))
        bar = np.empty(ask.queries.shape[0], dtype=np.float32)
        none = np.zeros((0, 0), dtype=np.uint16)
        nothing = Kept(none, none, np.zeros(0, dtype=np.uint8), 1)
        weigh_known(np.full((bar.size, 1), -1), ask, nothing, bar)
        refs = [team.ask(owner, "near", shared, flat, known.numbers, bar) for owner, flat, _ in visits]
        for found in team.answers(refs):
            enter(ask, found)
        enter(out, Best(ask.best, ask.twin_sim, ask.twin_row))

    def _visits(self, chosen: U8) -> Iterator[tuple[int, I64, I64]]:
        """Yield owner, list times b plus query of what is read there (by the owner's numbers), and what first."""
        for owner in range(len(self._places.team)):
            own = chosen[self._owner == owner].reshape(-1)
            flat = np.flatnonzero(own)
            if flat.size:
                yield owner, flat, flat[own[flat] == 2]

    # How lists are dealt out

    def _deal(self, coarse: Coarse, size: int, usable: I64) -> None:
        """Send each list with its rows to an owner: the longest first, each to the one that has the fewest rows."""
        places, team, centres = self._places, self._places.team, coarse.centres.x
        every = team.put(centres)
        refs = [team.ask(owner, "nearest", every, size, self._need) for owner in range(len(team))]
        at = np.empty(usable.size, dtype=np.int64)
        for owner, near in enumerate(team.answers(refs)):
            at[places.owner[usable] == owner] = near
        coarse.add(at)
        length = np.bincount(at, minlength=coarse.count)
        places.load[:] = 0
        self._owner = np.zeros(coarse.count, dtype=np.int32)
        for c in np.argsort(-length, kind="stable").tolist():
            self._owner[c] = owner = int(np.argmin(places.load))
            places.load[owner] += length[c]
        places.owner[:size] = -1
        places.owner[usable] = self._owner[at]
        count, where = len(team), team.put((self._owner, self._local()))
        parts = [team.ask(o, "split", size, self._need, where, count, returns=count) for o in range(count)]
        for owner in range(count):
            mine = [part if count == 1 else part[owner] for part in parts]
            team.tell(owner, "receive", size, centres[self._owner == owner], *mine)

    def _join(self, coarse: Coarse, numbers: I64) -> None:
        if not numbers.size:
            return
        places, before = self._places, coarse.count
        part = places.fetch(numbers)
        at = coarse.joined(part.rows)
        coarse.add(at)
        new = np.full(coarse.count - before, int(np.argmin(places.load)), dtype=np.int32)
        self._owner = np.concatenate([self._owner, new])
        local, to = self._local(), self._owner[at]
        places.owner[numbers] = to
        for owner in np.unique(np.concatenate([to, new])).tolist():
            own, fresh = to == owner, np.flatnonzero(self._owner[before:] == owner) + before
            first = int((self._owner[:before] == owner).sum())
            places.team.tell(
                owner, "join", part.at(own), local[at[own]].astype(np.int64), first, coarse.centres.x[fresh]
            )
            places.load[owner] += own.sum()

    def _halve_long(self, coarse: Coarse) -> None:
        team = self._places.team
        while (long := coarse.long()).size:
            local, owners = self._local(), self._owner[long]
            fresh = np.bincount(self._owner, minlength=len(team))
            asks: dict[int, list[tuple[int, int]]] = {}
            for c, owner in zip(long.tolist(), owners.tolist(), strict=True):
                asks.setdefault(owner, []).append((int(local[c]), int(fresh[owner])))
                fresh[owner] += 1
            refs = [team.ask(owner, "halve", pairs) for owner, pairs in asks.items()]
            told = dict(zip(asks, map(iter, team.answers(refs)), strict=True))
            for c, owner in zip(long.tolist(), owners.tolist(), strict=True):
                coarse.halved(c, *next(told[owner]))
            self._owner = np.concatenate([self._owner, owners])

    def _local(self) -> I32:
        """Return each list's number with its owner: lists keep their order there."""
        out = np.zeros(self._owner.size, dtype=np.int32)
        for owner in range(len(self._places.team)):
            own = self._owner == owner
            out[own] = np.arange(own.sum())
        return out

    def _forget(self) -> None:
        self._coarse, self._listed = None, 0
        self._owner = np.zeros(0, dtype=np.int32)
