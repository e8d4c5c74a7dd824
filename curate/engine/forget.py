"""Takedown: rows go from data, index, statistics and history, and are barred from coming back.

Deciding is one commit: the rows' share is subtracted from every sum, what duplicated them is decided again, and they
are marked. Removing (`curate.pool.takedown`) follows, and can be repeated: a note of what is under way stays until the
last byte is gone, and the next writer finishes it. Receipt, note and bar hold salted hashes only.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from curate.engine.changes import Forgetting
from curate.errors import KeyNotFoundError, PoolError, UsageError
from curate.pool import Pool, Writer
from curate.pool.journal import drop_from_journal
from curate.pool.takedown import RECEIPTS, finish, read_bar, write_note
from curate.remote import Place, listed
from curate.samples import content_hash
from curate_kernels.arrays import I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

_NO_BYTES = content_hash(b"")


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

    def __init__(self, pool: Place) -> None:
        saved = read_bar(pool)
        self.salt: str = saved["salt"]
        self._hashes: set[str] = set(saved["hashes"])

    def hash(self, kind: str, text: str) -> str:
        """Return 32 hex digits that tell nothing about the text to who has not the salt."""
        return hashlib.blake2b(f"{kind}\0{text}".encode(), key=bytes.fromhex(self.salt), digest_size=16).hexdigest()

    def holds(self, source: str, key: str, sha256: str) -> bool:
        """Tell whether a row is barred, by its bytes or by its name in its source."""
        if not self._hashes:
            return False
        name = self.hash("name", f"{source}\0{key}")
        return name in self._hashes or self.hash("bytes", sha256) in self._hashes

    def with_rows(self, rows: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
        """Return what is to be saved when rows (source, key, sha256) are barred too; many rows have no bytes at all."""
        self.salt = self.salt or secrets.token_hex(32)
        hashes = set(self._hashes)
        for source, key, sha256 in rows:
            hashes.add(self.hash("name", f"{source}\0{key}"))
            if sha256 != _NO_BYTES:
                hashes.add(self.hash("bytes", sha256))
        return {"salt": self.salt, "hashes": sorted(hashes)}


def forget(
    pool: str | Place,
    *,
    keys: Sequence[str] = (),
    url_domains: Sequence[str] = (),
    sha256: Sequence[str] = (),
    refill: bool = False,
) -> Forgotten:
    """Take rows out of a pool for good.

    keys: keys, `SOURCE:KEY` or uids; url_domains: rows whose `url` is of this domain or below it; sha256: of the bytes.
    Rows in the same bytes as a named one go with it.
    refill: rows that had been refused as near-duplicates of forgotten ones may take their place.

    Earlier versions and tags are gone after it: they held the rows. A manifest written before still names them.
    Raises KeyNotFoundError for a key that names no row or several, UsageError when nothing was asked for.
    """
    from curate.engine import checkpoint
    from curate.engine.grow import open_engine

    if not (keys or url_domains or sha256):
        raise UsageError("nothing to forget was named; give keys, url domains or sha256 digests")
    with Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        try:
            rows = _rows(opened, keys, url_domains, sha256)
        except KeyNotFoundError:
            if writer.finished is None:
                raise
            rows = np.zeros(0, dtype=np.int64)  # the same command again, after it was interrupted
        if rows.size:
            engine = open_engine(writer, opened)
            engine.ready()
            note = _note(opened, rows, engine.state.step + 1)
            _subtract(engine, rows)
            uids = opened.take(rows.tolist(), ["uid"]).column("uid").to_pylist()
            drop_from_journal(writer.path, set(uids))
            write_note(writer.path, note)
            note["refilled"] = checkpoint.run(engine, forgetting=Forgetting(rows, refill))
            write_note(writer.path, note)
            writer.finished = finish(writer)
        if writer.finished is None:
            raise UsageError(f"no row of the pool at {writer.path} matches; nothing was forgotten")
        done = writer.finished
        version = Pool.open(writer.path).version
    return Forgotten(
        pool=str(pool),
        version=version,
        forgotten=len(done["forgotten"]),
        refilled=done["refilled"],
        versions=done["versions"],
        tags=done["tags"],
        receipt=done["receipt"],
    )


def _note(pool: Pool, rows: I64, step: int) -> dict[str, Any]:
    """Return what must be known to finish: hashes to bar and to receipt, and what the versions until now did."""
    shown = ("version", "timestamp", "what", "rows", "admitted")
    events = [{**entry, **pool.event(entry["version"])} for entry in pool.versions()]
    table = pool.take(rows.tolist(), ["uid", "source", "key", "sha256"]).to_pylist()
    bar = Bar(pool.path)
    saved = bar.with_rows((row["source"], row["key"], row["sha256"]) for row in table)
    return {
        "step": step,
        "bar": saved,
        "forgotten": sorted(bar.hash("uid", row["uid"]) for row in table),
        "versions": len(events),
        "tags": list(pool.tags()),
        "past": [{k: e[k] for k in shown if k in e} for e in events if e["what"] != "layout"],
        "refilled": 0,
    }


def past_log(pool: Place) -> list[dict[str, Any]]:
    """Return what the receipts keep of versions that are gone, newest first."""
    found = []
    for path in reversed(listed(pool / RECEIPTS, ".json")):
        try:
            found += [{**entry, "gone": True} for entry in reversed(json.loads(path.read_bytes())["past"])]
        except (OSError, ValueError, LookupError, TypeError) as error:
            todo = "restore it from a backup or move it away; nothing else needs it"
            raise PoolError(f"the receipt of a takedown, {path}, is damaged: {error}; {todo}") from error
    return found


def _rows(pool: Pool, keys: Sequence[str], domains: Sequence[str], digests: Sequence[str]) -> I64:
    """Return the ordinals of the rows that are meant, ascending, and of those with the same bytes."""
    found = {int(pool.find(key)["row"]) for key in keys}
    asked = {_hex(digest) for digest in digests}
    if _NO_BYTES in asked:
        raise UsageError("that is the SHA-256 of no bytes at all, which many rows may have; name them by key")
    if domains:
        wanted = tuple(domain.lower().strip(".") for domain in domains)
        if not all(wanted):
            raise UsageError("an empty url domain was given; write one like example.org")
        table = pool.frame(["row", "meta"], where="meta LIKE '%url%'")
        found.update(row for row, meta in table.iter_rows() if _host_in(meta, wanted))
    asked.update(pool.take(sorted(found), ["sha256"]).column("sha256").to_pylist())
    asked.discard(_NO_BYTES)
    if asked:
        where = "sha256 IN ({})".format(", ".join(f"'{digest}'" for digest in sorted(asked)))
        found.update(pool.frame(["row"], where=where)["row"].to_list())
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
