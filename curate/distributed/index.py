"""The kept set over the machines of a cluster: the same answers as in one process, to the bit.

Hashes, uids and flags stay with the driver, and so do the centres of the lists; rows lie with owners. Blocks of rows
that are in no list yet go to the owners in turn and are searched by all. A list lies with one owner, with its rows: a query
goes to the owners of the lists that it reads, twice: the best rows by estimate of all of them set the bar that every
other row must pass. What a search gives is the best of what its parts give, so it does not matter where a row lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from curate.distributed.owner import Best, Owner, Part, Query, Rough
from curate.errors import WorkerError
from curate.neighbors import EXACT, KeptIndex
from curate.neighbors.centres import training_rows
from curate.neighbors.coarse import BLOCK, Coarse
from curate.neighbors.flat import asked, search_tiles
from curate.neighbors.pages import KNOWN
from curate.neighbors.products import WholeTiles
from curate_kernels.arrays import B1, F32, I32, I64, U8
from curate_kernels.kept import pair_inner, weigh_known
from curate_kernels.search import U16, Asked, Kept

_AHEAD = 16  # blocks that are on their way to owners at once


class LostError(WorkerError):
    """An owner of kept rows died, and its rows with it: they lie in the pool, too."""


class Team:
    """The owners of one side: an actor on each machine of the cluster, by Ray's choice of places."""

    def __init__(self, ray: Any, count: int) -> None:
        self._ray = ray
        actor = ray.remote(Owner).options(num_cpus=0, scheduling_strategy="SPREAD")
        self._actors = [actor.remote() for _ in range(count)]
        self._waiting: deque[Any] = deque()
        self._lost: Exception | None = None

    def __len__(self) -> int:
        return len(self._actors)

    @property
    def lost(self) -> bool:
        """Whether an owner died."""
        return self._lost is not None

    def put(self, value: Any) -> Any:
        """Return a reference to a value for several owners."""
        return self._ray.put(value)

    def ask(self, owner: int, method: str, *given: Any, returns: int = 1) -> Any:
        """Call an owner; return the reference to its answer."""
        return getattr(self._actors[owner], method).options(num_returns=returns).remote(*given)

    def tell(self, owner: int, method: str, *given: Any) -> None:
        """Call an owner and do not wait, but for calls of long ago; what goes wrong is told by the next answer."""
        self._waiting.append(self.ask(owner, method, *given))
        while len(self._waiting) > _AHEAD:
            self._settle(self._waiting.popleft())

    def answers(self, refs: Sequence[Any]) -> list[Any]:
        """Return the answers, in order. Raises LostError where an owner died."""
        while self._waiting and not self._lost:
            self._settle(self._waiting.popleft())
        out = [self._settle(ref) for ref in refs if not self._lost]
        if self._lost:
            raise LostError(f"a part of the kept set was lost with the process that held it: {self._lost}")
        return out

    def kill(self) -> None:
        """End the owners."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _settle(self, ref: Any) -> Any:
        try:
            return self._ray.get(ref)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            self._lost = error
            return None


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
                for owner in range(len(team)):
                    team.tell(owner, "clear")
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
    """A side of the kept set on a cluster: see `curate.neighbors.side.Side`. The newest rows stay here, a block or two.

    Where a row lies takes 2 bytes of memory here.
    """

    def __init__(self, team: Callable[[], Team], need: int) -> None:
        """team: makes the owners, or returns those there are, when the first block is sent; need: see `Kept`."""
        self._make, self._need = team, need
        self._made: Team | None = None
        self.rows: U16 = np.zeros((0, 0), dtype=np.uint16)  # none: only their width is asked for
        self._beside = 0
        self._tail: list[Part] = []  # rows from number `_sent` on
        self._sent = 0
        self._owner: Any = np.zeros(0, dtype=np.int16)  # of each row, -1: none, as it is here or of no use
        self._load: I64 = np.zeros(0, dtype=np.int64)  # rows sent to each owner
        self._coarse: Coarse | None = None
        self._listed = 0  # rows before this one are in lists
        self._list_owner: I32 = np.zeros(0, dtype=np.int32)

    # Rows

    def reserve(self, rows: int, width: int) -> None:
        """Have rows of at least this width."""
        if width > self.rows.shape[1]:
            self._widen(width, self._beside)

    def put(self, start: int, x: F32, captions: F32, captioned: B1) -> None:
        """Set rows start, start + 1, … to x (b, width), with their captions beside, rounded to float16."""
        if captions.shape[1] > self._beside:
            self._widen(self.rows.shape[1], captions.shape[1])
        rows, beside = (np.zeros((x.shape[0], width), dtype=np.uint16) for width in (self.rows.shape[1], self._beside))
        rows[:, : x.shape[1]] = x.astype(np.float16).view(np.uint16)
        beside[:, : captions.shape[1]] = captions.astype(np.float16).view(np.uint16)
        flags = (1 + 2 * captioned).astype(np.uint8)
        self._tail.append(Part(np.arange(start, start + x.shape[0]), rows, beside, flags))
        stop = start + x.shape[0]
        if stop > self._owner.size:
            self._owner.resize(max(stop, self._owner.size + self._owner.size // 8), refcheck=False)
        self._owner[start:stop] = -1
        if self._coarse is None:
            self._send(stop - stop % BLOCK)

    def drop(self, rows: I64) -> None:
        """Keep rows no more."""
        tail = self._rest()
        tail.flags[rows[rows >= self._sent] - self._sent] = 0
        for owner, which in self._by_owner(rows[rows < self._sent]):
            self._team.tell(owner, "drop", rows[rows < self._sent][which])

    def compact(self, alive: I64) -> None:
        """Keep these rows only, numbered anew in order, and forget the lists."""
        tail, here = self._rest(), alive[alive >= self._sent]
        if self._made is not None:
            every = self._team.put(alive)
            for owner in range(len(self._team)):
                self._team.tell(owner, "renumber", every)
        self._sent = int((alive < self._sent).sum())
        first = int(tail.numbers[0]) if tail.numbers.size else 0
        kept = Part(*(array[here - first] for array in tail))
        self._tail = [kept._replace(numbers=np.arange(self._sent, self._sent + here.size))]
        self._owner = self._owner[alive]
        self._forget()

    def pairs(self, i: I64, at: I64, ask: Asked, kept: Kept, captions: bool = False) -> F32:
        """Return the similarities (p,) of queries i and rows `at`, or of their captions, as a search computes them."""
        out = np.zeros(i.size, dtype=np.float32)
        queries = ask.captions if captions else ask.queries
        tail = self._rest()
        here = np.flatnonzero(at >= self._sent)
        sims = np.empty(here.size, dtype=np.float32)
        pair_inner(i[here], at[here] - self._sent, queries, tail.captions if captions else tail.rows, sims)
        out[here] = sims
        away = np.flatnonzero(at < self._sent)
        groups = [(owner, away[which]) for owner, which in self._by_owner(at[away])]
        given = [(own, *np.unique(i[own], return_inverse=True)) for _, own in groups]
        refs = [
            self._team.ask(owner, "pairs", place, at[own], queries[used], captions)
            for (owner, _), (own, used, place) in zip(groups, given, strict=True)
        ]
        for (_, own), sims in zip(groups, self._answers(refs), strict=True):
            out[own] = sims
        return out

    # Lists

    def train(self, size: int, usable: I64) -> None:
        """Make lists anew over the usable among the first `size` rows; of fewer than a block none are made."""
        self._forget()
        if usable.size < BLOCK:
            return
        self._send(size)
        for owner in range(len(self._team)):
            self._team.tell(owner, "forget")
        sample = training_rows(usable, Coarse.wanted(usable.size))
        read = self._fetch(sample)
        self._coarse, self._listed = Coarse(read.rows, np.arange(sample.size), usable.size), size
        self._deal(size, usable)
        self._halve_long()

    def join(self, size: int, kept: Kept) -> None:
        """Let the rows before `size` join the lists, in whole blocks."""
        before = self._listed
        while self._coarse is not None and size - self._listed >= BLOCK:
            block = np.arange(self._listed, self._listed + BLOCK)
            self._listed += BLOCK
            self._join(self._coarse, block[kept.flags[block] & kept.need == kept.need])
            self._halve_long()
        if before < min(self._listed, self._sent):
            for owner in range(len(self._team)):
                self._team.tell(owner, "cut", self._listed)
        self._keep_from(self._listed)

    def search(self, kept: Kept, size: int, ask: Asked) -> None:
        """Enter the rows before `size` into what was found: exactly, but for those in lists that are not read."""
        if not self.rows.shape[1]:
            return
        turned, chosen = self._coarse.asked(ask.queries) if self._coarse is not None else (None, None)
        least = (float(ask.least[0]), float(ask.least[1]))
        query = Query(ask.queries, ask.captions, ask.captioned, least, ask.best.shape[1], kept.need, turned)
        shared = self._team.put(query) if self._made is not None else None
        exact = range(len(self._team)) if self._made is not None and self._listed < self._sent else ()
        refs = [self._team.ask(owner, "search", shared) for owner in exact]
        visits = list(self._visits(chosen)) if chosen is not None else []
        rough = [self._team.ask(owner, "rough", shared, first) for owner, flat, first in visits]
        _enter(ask, self._search_tail(query))
        for found in self._answers(refs):
            _enter(ask, found)
        if visits:
            self._search_lists(ask, shared, visits, self._answers(rough))

    def _search_tail(self, query: Query) -> Best:
        ask, tail = query.ask(), self._rest()
        floats = tail.rows.view(np.float16).astype(np.float32)
        longest = float(np.sqrt(np.einsum("ij,ij->i", floats, floats).max(initial=0.0))) * 1.0001
        local = Kept(tail.rows, tail.captions, tail.flags, query.need)
        search_tiles(local, longest, ask, 0, tail.numbers.size, WholeTiles())
        return Best(ask.best, ask.twin_sim, np.where(ask.twin_row >= 0, ask.twin_row + self._sent, -1))

    def _search_lists(self, ask: Asked, shared: Any, visits: Sequence[Any], rough: Sequence[Rough]) -> None:
        """Enter what the lists hold. The tail is not in what sets their bar, as it is not in one process."""
        b, k = ask.best.shape
        own = asked(ask.queries, k, ask.captions, ask.captioned, (float(ask.least[0]), float(ask.least[1])))
        every = Rough(*(np.concatenate(arrays, axis=1) for arrays in zip(*rough, strict=True)))
        order = np.lexsort((every.numbers, -every.rough), axis=1)[:, :KNOWN]
        known, sims, same = (np.take_along_axis(a, order, axis=1) for a in (every.numbers, every.sims, every.same))
        _enter(own, _best_of(known, sims, same, own))
        bar = np.empty(b, dtype=np.float32)
        nothing = Kept(*(np.zeros((0, 0), dtype=np.uint16) for _ in range(2)), np.zeros(0, dtype=np.uint8), 1)
        weigh_known(np.full((b, 1), -1), own, nothing, bar)
        refs = [self._team.ask(owner, "near", shared, flat, known, bar) for owner, flat, _ in visits]
        for found in self._answers(refs):
            _enter(own, found)
        _enter(ask, Best(own.best, own.twin_sim, own.twin_row))

    def _visits(self, chosen: U8) -> Iterator[tuple[int, I64, B1]]:
        """Yield owner, list times b plus query of what is read there (the owner's numbers), and which is read first."""
        for owner in range(len(self._team)):
            own = chosen[self._list_owner == owner].reshape(-1)
            flat = np.flatnonzero(own)
            if flat.size:
                yield owner, flat, flat[own[flat] == 2]

    # How rows and lists are dealt out

    def _deal(self, size: int, usable: I64) -> None:
        """Send each list with its rows to an owner: the longest first, each to the one that has the fewest rows."""
        assert self._coarse is not None
        team, centres = self._team, self._coarse.centres.x
        every = team.put(centres)
        refs = [team.ask(owner, "nearest", every, size, self._need) for owner in range(len(team))]
        at = np.empty(usable.size, dtype=np.int32)
        for owner, near in enumerate(self._answers(refs)):
            at[self._owner[usable] == owner] = near
        self._coarse.add(at)
        length = np.bincount(at, minlength=centres.shape[0])
        self._load = np.zeros(len(team), dtype=np.int64)
        self._list_owner = np.zeros(length.size, dtype=np.int32)
        for c in np.argsort(-length, kind="stable").tolist():
            self._list_owner[c] = owner = int(np.argmin(self._load))
            self._load[owner] += length[c]
        self._owner[:size] = -1
        self._owner[usable] = self._list_owner[at]
        count, where = len(team), team.put((self._list_owner, self._local()))
        parts = [team.ask(o, "split", size, self._need, where, count, returns=count) for o in range(count)]
        for owner in range(count):
            mine = [part if count == 1 else part[owner] for part in parts]
            team.tell(owner, "receive", size, centres[self._list_owner == owner], *mine)

    def _join(self, coarse: Coarse, numbers: I64) -> None:
        if not numbers.size:
            return
        part, before = self._fetch(numbers), coarse.count
        at = coarse.joined(part.rows)
        coarse.add(at)
        new = np.full(coarse.count - before, int(np.argmin(self._load)), dtype=np.int32)
        self._list_owner = np.concatenate([self._list_owner, new])
        local, to = self._local(), self._list_owner[at]
        self._owner[numbers] = to
        for owner in np.unique(np.concatenate([to, new])).tolist():
            own, fresh = to == owner, np.flatnonzero(self._list_owner[before:] == owner) + before
            rows = Part(*(array[own] for array in part))
            first = int((self._list_owner[:before] == owner).sum())
            args = (rows, local[at[own]].astype(np.int64), first, coarse.centres.x[fresh])
            self._team.tell(owner, "join", *args)
            self._load[owner] += own.sum()

    def _halve_long(self) -> None:
        while self._coarse is not None and (long := self._coarse.long()).size:
            local, owners = self._local(), self._list_owner[long]
            fresh = np.bincount(self._list_owner, minlength=len(self._team))
            asks: dict[int, list[tuple[int, int]]] = {}
            for c, owner in zip(long.tolist(), owners.tolist(), strict=True):
                asks.setdefault(owner, []).append((int(local[c]), int(fresh[owner])))
                fresh[owner] += 1
            refs = [self._team.ask(owner, "halve", pairs) for owner, pairs in asks.items()]
            told = dict(zip(asks, map(iter, self._answers(refs)), strict=True))
            for c, owner in zip(long.tolist(), owners.tolist(), strict=True):
                self._coarse.halved(c, *next(told[owner]))
            self._list_owner = np.concatenate([self._list_owner, owners])

    def _local(self) -> I32:
        """Return each list's number with its owner: lists keep their order there."""
        out = np.zeros(self._list_owner.size, dtype=np.int32)
        for owner in range(len(self._team)):
            own = self._list_owner == owner
            out[own] = np.arange(own.sum())
        return out

    def _send(self, stop: int) -> None:
        """Send rows before `stop` to owners, in blocks."""
        tail = self._rest()
        if stop <= self._sent:
            return
        if not self.rows.shape[1]:  # captions of which there are none
            self._keep_from(stop)
            return
        for start in range(self._sent, stop, BLOCK):
            part = Part(*(array[start - self._sent : min(start + BLOCK, stop) - self._sent] for array in tail))
            owner = int(np.argmin(self._load)) if self._load.size else 0
            self._team.tell(owner, "put", part)
            self._load[owner] += part.numbers.size
            self._owner[part.numbers] = owner
        self._keep_from(stop)

    def _fetch(self, numbers: I64) -> Part:
        """Return rows by number, wherever they are."""
        width = (self.rows.shape[1], self._beside)
        out = Part(
            numbers, *(np.zeros((numbers.size, w), dtype=np.uint16) for w in width), np.zeros(numbers.size, np.uint8)
        )
        tail, here = self._rest(), numbers >= self._sent
        away = np.flatnonzero(~here)
        for array, own in zip(out[1:], tail[1:], strict=True):
            array[here] = own[numbers[here] - self._sent]
        groups = [(owner, away[which]) for owner, which in self._by_owner(numbers[away])]
        parts = self._answers([self._team.ask(owner, "take", numbers[own]) for owner, own in groups])
        for (_, own), part in zip(groups, parts, strict=True):
            for array, given in zip(out[1:], part[1:], strict=True):
                array[own] = given
        return out

    def _by_owner(self, rows: I64) -> Iterator[tuple[int, I64]]:
        """Yield each owner of some of the rows, with where these are among them."""
        owner = self._owner[rows]
        for one in np.unique(owner[owner >= 0]).tolist():
            yield one, np.flatnonzero(owner == one)

    def _rest(self) -> Part:
        """Return the rows that are here, as one part; their flags may be changed."""
        if len(self._tail) != 1:
            if not self._tail:
                widths = (self.rows.shape[1], self._beside)
                empty = [np.zeros((0, w), dtype=np.uint16) for w in widths]
                self._tail = [Part(np.zeros(0, dtype=np.int64), *empty, np.zeros(0, dtype=np.uint8))]
            self._tail = [Part(*(np.concatenate(arrays) for arrays in zip(*self._tail, strict=True)))]
        return self._tail[0]

    def _keep_from(self, first: int) -> None:
        """Keep the rows from this number on here."""
        if first > self._sent:
            self._tail = [Part(*(array[first - self._sent :].copy() for array in self._rest()))]
            self._sent = first

    def _widen(self, width: int, beside: int) -> None:
        tail, (old, was) = self._rest(), (self.rows.shape[1], self._beside)
        wider = (
            np.pad(a, ((0, 0), (0, more))) for a, more in ((tail.rows, width - old), (tail.captions, beside - was))
        )
        self._tail = [Part(tail.numbers, *wider, tail.flags)]
        self.rows, self._beside = np.zeros((0, width), dtype=np.uint16), beside
        if self._made is not None:
            for owner in range(len(self._team)):
                self._team.tell(owner, "widen", width, beside)

    def _forget(self) -> None:
        self._coarse, self._listed = None, 0
        self._list_owner = np.zeros(0, dtype=np.int32)

    @property
    def _team(self) -> Team:
        if self._made is None:
            self._made = self._make()
            self._load = np.zeros(len(self._made), dtype=np.int64)
            for owner in range(len(self._made)):
                self._made.tell(owner, "widen", self.rows.shape[1], self._beside)
        return self._made

    def _answers(self, refs: Sequence[Any]) -> list[Any]:
        return self._team.answers(refs) if self._made is not None else []


def _enter(ask: Asked, found: Best) -> None:
    """Enter what a part of the kept set gave."""
    both = np.concatenate([ask.best, found.best], axis=1)
    ask.best[:] = -np.sort(-both, axis=1)[:, : ask.best.shape[1]]
    lower = (found.twin_sim == ask.twin_sim) & (found.twin < ask.twin_row)
    better = (found.twin >= 0) & ((found.twin_sim > ask.twin_sim) | lower)
    ask.twin_sim[better], ask.twin_row[better] = found.twin_sim[better], found.twin[better]


def _best_of(numbers: I64, sims: F32, same: B1, ask: Asked) -> Best:
    """Return the best of (b, c) rows; same: they may be a twin."""
    b, k = ask.best.shape
    best = np.full((b, k), -np.inf, dtype=np.float32)
    best[:, : min(k, KNOWN)] = -np.sort(-sims, axis=1)[:, :k]
    near = np.where(same & (sims.astype(np.float64) >= ask.least[0]), sims, np.float32(-np.inf))
    first = np.lexsort((numbers, -near), axis=1)[:, :1]
    sim = np.take_along_axis(near, first, axis=1)[:, 0]
    twin = np.take_along_axis(numbers, first, axis=1)[:, 0]
    return Best(best, sim, np.where(sim > -np.inf, twin, -1))
