"""Indexes of the original tars for NVIDIA DALI, and a list of these tars: nothing is copied."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import RemoteError, SourceError
from curate.exports.folder import Folder
from curate.exports.images import Refused
from curate.exports.task import Shard, Task
from curate.remote import Place, Remote, place
from curate.sources.remembered import Group
from curate.sources.tarindex import check_tar, index_tar

_COLUMNS = ["uid", "source", "key", "path", "offset"]


class WdsIndex:
    """Writes an `.idx` for each tar with chosen samples, `shards.json` and `shards.txt`. Holds 36 bytes a row.

    An index begins `v1.2 N`; each of its N lines names the components of a chosen sample: `ext offset size name`.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def _tars(self) -> tuple[list[tuple[str, str]], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (source, path) of each tar, the rows in its order and their offsets, and where each tar's begin."""
        rows = self._task.subset.rows
        number, offset = np.zeros(rows, np.int32), np.zeros(rows, np.int64)
        known: dict[tuple[str, str], int] = {}
        at = 0
        for frame in self._task.subset.frames(["source", "path", "offset"]):
            pairs = zip(frame["source"], frame["path"], strict=True)
            number[at : at + frame.height] = [known.setdefault(_tar(*pair), len(known)) for pair in pairs]
            offset[at : at + frame.height] = frame["offset"].fill_null(0).to_numpy()
            at += frame.height
        ranked = sorted(known)
        new = np.empty(max(len(known), 1), np.int32)
        for i, pair in enumerate(ranked):
            new[known[pair]] = i
        number = new[number]
        order = np.lexsort((offset, number))
        begins = np.searchsorted(number[order], np.arange(len(ranked) + 1))
        return ranked, order, offset[order], begins

    def plan(self) -> list[tuple[int, int]]:
        """Return what each tar covers of the rows in order of tar and offset."""
        begins = self._tars[3].tolist()
        return list(itertools.pairwise(begins))

    def shard(self, shard: Shard) -> Any:
        """Write one tar's index."""
        tars, order, offsets, _ = self._tars
        own = slice(shard.start, shard.stop)
        rows = list(zip(offsets[own].tolist(), order[own].tolist(), strict=True))
        source, path = tars[shard.number]
        try:
            at = self._place(source, path)
            found = self._found(at, {offset for offset, _ in rows})
        except Refused as refused:
            self._refuse(shard, rows, refused)
            return None
        gone = [pair for pair in rows if pair[0] not in found]
        self._refuse(shard, gone, Refused("changed", f"no sample's image begins there in {at}"))
        shard.samples = len(found)
        lines = [f"v1.2 {len(found)}", *(_line(found[offset]) for offset in sorted(found))]
        if found:
            shard.file(self._names[shard.number]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        shard.tick(shard.stop - 1)
        return {"url": str(at), "nsamples": len(found), "index": self._names[shard.number]} if found else None

    def _place(self, source: str, path: str) -> Place:
        root = self._task.subset.roots.get(source)
        if root is None or not path:
            raise Refused("not_in_a_tar", "only rows that lie in WebDataset tars can be indexed")
        at = place(root, path)
        if not at.exists():
            raise Refused("missing", f"there is no {at}")
        return at if isinstance(at, Remote) else at.absolute()

    def _found(self, at: Place, offsets: set[int]) -> dict[int, Group]:
        """Return the samples whose image begins where a row says, by that offset."""
        found: dict[int, Group] = {}
        try:
            check_tar(at)
            with at.open("rb") as file:
                for group in index_tar(at, file):
                    found |= {offset: group for offset, _ in group.parts.values() if offset in offsets}
        except RemoteError:  # an outage says nothing of the rows
            raise
        except (OSError, SourceError) as error:
            raise Refused("unreadable", str(error)) from error
        return found

    def _refuse(self, shard: Shard, rows: Iterable[tuple[int, int]], refused: Refused) -> None:
        for ordinal in sorted(ordinal for _, ordinal in rows):
            for _, row in self._task.subset.records(_COLUMNS, ordinal, ordinal + 1):
                shard.refuse(ordinal, row, refused)

    @cached_property
    def _names(self) -> list[str]:
        """Return each tar's index: its name, or numbers where two tars have one name."""
        stems = [re.sub(r"[^\w-]+", "_", PurePosixPath(path).stem).lower() for _, path in self._tars[0]]
        apart = len(set(stems)) == len(stems)
        return [f"{stem}.idx" if apart else f"{i:05d}.idx" for i, stem in enumerate(stems)]

    def finish(self, folder: Folder) -> None:
        """Write the lists of tars."""
        tars = [notes for _, notes in folder.notes() if notes]
        with folder.put("shards.json") as file:
            file.write(json.dumps({"shardlist": tars}, indent=1, ensure_ascii=False).encode() + b"\n")
        with folder.put("shards.txt") as file:
            file.write("".join(f"{line}\n" for line in braced([tar["url"] for tar in tars])).encode())


def _tar(source: str, path: str | None) -> tuple[str, str]:
    """Return what a row lies in: its tar, or nothing of a source's files of their own."""
    return (source, path) if path and path.lower().endswith(".tar") else (source, "")


def _line(group: Group) -> str:
    """Return a sample's components. White space would end a field, so it is `_` in names, which DALI only shows."""
    parts = sorted((offset, size, end) for end, (offset, size) in group.parts.items() if not re.search(r"\s", end))
    key = re.sub(r"\s", "_", group.key)
    return " ".join(f"{end} {offset} {size} {key}.{end}" for offset, size, end in parts)


def braced(urls: list[str]) -> list[str]:
    """Return URLs in order with runs of consecutive numbers as one: a/{00000..00008}.tar."""
    runs: list[tuple[str, str, str, str]] = []
    for url in urls:
        found = re.fullmatch(r"(.*?)(\d+)(\D*)", url, re.DOTALL)
        head, number, tail = found.groups() if found else (url, "", "")
        if runs and number:
            before, first, last, after = runs[-1]
            follows = last and int(last) + 1 == int(number) and len(last) == len(number)
            if follows and (before, after) == (head, tail):
                runs[-1] = (before, first, number, after)
                continue
        runs.append((head, number, number, tail))
    return [f"{a}{{{first}..{last}}}{b}" if first != last else f"{a}{first}{b}" for a, first, last, b in runs]
