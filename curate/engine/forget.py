"""Takedown: rows go from data, index, statistics and history, and are barred from coming back.

Deciding is one commit: the rows' share is subtracted from every sum, what duplicated them is decided again, and they
are marked. Removing follows, and can be repeated: a note of what is under way stays until the last byte is gone, and
the next writer finishes it. Receipt and bar hold salted hashes only.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from curate.engine.changes import FORGOTTEN, Forgetting
from curate.engine.state import State
from curate.errors import UsageError
from curate.files import atomic_write, canonical_json
from curate.pool import Pool, Writer
from curate_kernels.arrays import I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

_BAR, _PENDING, _RECEIPTS = "forgotten/bar.json", "forgotten/pending.json", "receipts"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a takedown did. `versions` and `tags`: those that can no longer be gone back to."""

    pool: str
    version: int
    forgotten: int
    refilled: int
    versions: int
    tags: list[str]
    receipt: str


class Bar:
    """Salted hashes of bytes and of names that must not come back."""

    def __init__(self, pool: Path) -> None:
        self._path = pool / _BAR
        saved = json.loads(self._path.read_text()) if self._path.exists() else {}
        self.salt: str = saved.get("salt", "")
        self._hashes: set[str] = set(saved.get("hashes", []))

    def __len__(self) -> int:
        return len(self._hashes)

    def hash(self, kind: str, text: str) -> str:
        """Return 32 hex digits that tell nothing about the text to who has not the salt."""
        return hashlib.blake2b(f"{kind}\0{text}".encode(), key=bytes.fromhex(self.salt), digest_size=16).hexdigest()

    def holds(self, source: str, key: str, sha256: str) -> bool:
        """Tell whether a row is barred, by its bytes or by its name in its source."""
        if not self._hashes:
            return False
        name = self.hash("name", f"{source}\0{key}")
        return name in self._hashes or self.hash("bytes", sha256) in self._hashes

    def add(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Bar rows (source, key, sha256) and write the bar to disk."""
        self.salt = self.salt or secrets.token_hex(32)
        for source, key, sha256 in rows:
            self._hashes.add(self.hash("name", f"{source}\0{key}"))
            if sha256:
                self._hashes.add(self.hash("bytes", sha256))
        self._path.parent.mkdir(exist_ok=True)
        atomic_write(self._path, canonical_json({"salt": self.salt, "hashes": sorted(self._hashes)}))


def forget(
    pool: str | Path,
    *,
    keys: Sequence[str] = (),
    url_domains: Sequence[str] = (),
    sha256: Sequence[str] = (),
    refill: bool = False,
) -> Forgotten:
    """Take rows out of a pool for good.

    keys: keys, `SOURCE:KEY` or uids; url_domains: rows whose `url` is of this domain or below it; sha256: of the bytes.
    refill: rows that had been refused as duplicates of forgotten ones may take their place.

    Earlier versions and tags are gone after it: they held the rows. A manifest written before still names them.
    Raises KeyNotFoundError for a key that names no row or several, UsageError when nothing was asked for.
    """
    from curate.engine import checkpoint
    from curate.engine.grow import open_engine

    if not (keys or url_domains or sha256):
        raise UsageError("nothing to forget was named; give keys, url domains or sha256 digests")
    path = Pool.open(pool).path
    with Writer(path) as writer:
        finish(writer)
        opened = Pool.open(path)
        rows = _rows(opened, keys, url_domains, sha256)
        if not rows.size:
            raise UsageError(f"no row of the pool at {path} matches; nothing was forgotten")
        table = opened.frame(["source", "key", "sha256", "uid"])[rows]
        bar = Bar(path)
        bar.add(table.select("source", "key", "sha256").iter_rows())
        engine = open_engine(writer, opened)
        engine.ready()
        _subtract(engine, rows)
        before = len(engine.index)
        _note(path, bar, table["uid"].to_list())
        kept = int((opened.frame(["decision"])["decision"][rows] == "admit").sum())
        checkpoint.run(engine, forgetting=Forgetting(rows, refill))
        refilled = len(engine.index) - (before - kept)
        receipt, versions, tags = finish(writer)
        return Forgotten(str(pool), Pool.open(path).version, rows.size, refilled, versions, tags, receipt)


def finish(writer: Writer) -> tuple[str, int, list[str]]:
    """Remove what a takedown marked: delete, renumber, compact, drop tags and old versions and old states.

    Does nothing where no takedown is under way. Returns (receipt, versions gone, tags gone).
    """
    note = writer.path / _PENDING
    if not note.exists():
        return "", 0, []
    pending = json.loads(note.read_text())
    opened = Pool.open(writer.path)
    marked = opened.dataset.count_rows(filter=f"reason = '{FORGOTTEN}'")
    state = State.from_dict(opened.state())
    state.rows -= marked
    state.step += 1
    gone = sorted({entry["version"] for entry in opened.versions()})
    tags = sorted(opened.dataset.tags.list())
    past = _past(opened)
    purged = writer.purge(opened, f"reason = '{FORGOTTEN}'", state.as_dict())
    versions = [gone[0], gone[-1]]
    receipt = {"forgotten": pending["hashes"], "versions": versions, "tags": tags, "rows": purged.rows, "past": past}
    (writer.path / _RECEIPTS).mkdir(exist_ok=True)
    name = f"{_RECEIPTS}/{state.step:08d}.json"
    atomic_write(writer.path / name, canonical_json(receipt))
    note.unlink()
    return name, len(gone), tags


def _past(pool: Pool) -> list[dict[str, Any]]:
    """Return the log up to now, figures only, oldest first: what remains of versions that are gone."""
    shown = ("version", "timestamp", "what", "rows", "admitted")
    events = [{**entry, **pool.event(entry["version"])} for entry in pool.versions()]
    return [{k: e[k] for k in shown if k in e} for e in events if e["what"] != "layout"]


def past_log(pool: Path) -> list[dict[str, Any]]:
    """Return what the receipts keep of versions that are gone, newest first."""
    receipts = [json.loads(path.read_text()) for path in sorted((pool / _RECEIPTS).glob("*.json"), reverse=True)]
    return [{**entry, "gone": True} for receipt in receipts for entry in reversed(receipt["past"])]


def _rows(pool: Pool, keys: Sequence[str], domains: Sequence[str], digests: Sequence[str]) -> I64:
    """Return the ordinals of the rows that are meant, ascending."""
    found = {int(pool.find(key)["row"]) for key in keys}
    if digests:
        table = pool.frame(["row"], where="sha256 IN ({})".format(", ".join(f"'{_hex(d)}'" for d in digests)))
        found.update(table["row"].to_list())
    if domains:
        table = pool.frame(["row", "meta"], where="meta LIKE '%url%'")
        wanted = tuple(domain.lower().lstrip(".") for domain in domains)
        found.update(row for row, meta in table.iter_rows() if _host_in(meta, wanted))
    return np.array(sorted(found), dtype=np.int64)


def _hex(text: str) -> str:
    if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):
        raise UsageError(f"{text!r} is no SHA-256; give 64 hex digits")
    return text.lower()


def _host_in(meta: str, domains: tuple[str, ...]) -> bool:
    url = json.loads(meta).get("url")
    try:
        host = (urlsplit(url).hostname or "").lower() if isinstance(url, str) else ""
    except ValueError:
        return False
    return any(host == domain or host.endswith("." + domain) for domain in domains)


def _subtract(engine: Engine, rows: I64) -> None:
    """Take rows out of the sums, as if they had never been seen."""
    size = 4096
    for start in range(0, rows.size, size):
        batch = engine.pool.take(rows[start : start + size].tolist(), engine.columns("counted")).combine_chunks()
        image, text, has_text, labels = engine.table_rows(batch)
        counted = batch.column("counted").to_numpy()
        part = engine.gate_rows(image, text, has_text, labels, counted)
        classes = len(engine.state.classes)
        pairs, labelled = engine.sums.update(part.image, part.text, part.has_text, part.label, classes, -1.0)
        engine.state.pairs -= pairs
        engine.state.labels -= labelled


def _note(path: Path, bar: Bar, uids: Sequence[str]) -> None:
    """Write down that a takedown is under way."""
    (path / _PENDING).parent.mkdir(exist_ok=True)
    atomic_write(path / _PENDING, canonical_json({"hashes": sorted(bar.hash("uid", uid) for uid in uids)}))
