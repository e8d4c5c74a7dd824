"""Captions of refused images, made in a thread beside the stream, which never waits for them.

They are kept in POOL/captions/<model fingerprint>.jsonl by the hash of the image's bytes, so that a killed run captions
nothing twice; only the last checkpoint of a run applies them, so that decisions do not depend on how fast they came.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.encoders.captioner import Captioner, load_captioner
from curate.engine.state import SourceState
from curate.pool import CAPTIONS
from curate.remote import Place
from curate.stored import PLACE, stored_pixels

if TYPE_CHECKING:
    from curate.engine.core import Engine

_LOG = logging.getLogger("curate")

_REFUSED = "embedded AND reason = 'caption_mismatch'"


class Captions:
    """What a captioner says about images, made in the background in full batches, or at once for who waits."""

    def __init__(self, model: str, folder: Place, max_pixels: int) -> None:
        self._model, self._max_pixels = model, max_pixels
        # An object store appends to nothing; there a killed run captions again.
        self._folder = folder if isinstance(folder, Path) else None
        self._captioner: Captioner | None = None
        self._made: dict[str, str] = {}
        self._asked: set[str] = set()
        self._pending: list[dict[str, Any]] = []
        self._busy = self._waited = self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="curate-captions", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Return what tells the model from others, once it is loaded. Raises what prevented that."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._captioner)
            if self._captioner is None:
                assert self._error is not None
                raise self._error
            return f"captioner {self._captioner.fingerprint}"

    def offer(self, rows: Iterable[Mapping[str, Any]], sources: Mapping[str, SourceState]) -> None:
        """Ask for captions; rows: PLACE by name. What was asked for before is passed over.

        Raises what went wrong in the thread so far, such as a model that is not here.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            for row in rows:
                if row["sha256"] not in self._asked:
                    self._asked.add(row["sha256"])
                    self._pending.append({**{name: row[name] for name in PLACE}, "root": sources[row["source"]].root})
            self._changed.notify_all()

    def wait(self, rows: Iterable[Mapping[str, Any]], sources: Mapping[str, SourceState]) -> dict[str, str]:
        """Return {sha256: caption} once all rows are captioned; those whose file is gone or changed are left out.

        Raises what the captioner raised in its thread.
        """
        self.offer(rows, sources)
        with self._changed:
            self._waited = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or not (self._pending or self._busy))
            self._waited = False
            if self._error is not None:
                raise self._error
            return dict(self._made)

    def close(self) -> None:
        """End the thread after the batch in progress."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            captioner = self._load()
            while batch := self._next(captioner.batch):
                self._caption(captioner, batch)
        except BaseException as error:  # raised where the captions are waited for
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _load(self) -> Captioner:
        captioner = load_captioner(self._model)
        made = _read(self._file(captioner))
        with self._changed:
            self._captioner, self._made = captioner, made
            self._asked |= made.keys()
            self._pending = [row for row in self._pending if row["sha256"] not in made]
            self._changed.notify_all()
        return captioner

    def _file(self, captioner: Captioner) -> Path | None:
        return self._folder / f"{captioner.fingerprint}.jsonl" if self._folder is not None else None

    def _next(self, size: int) -> list[dict[str, Any]]:
        """Return the next rows to caption, once there is a batch of them or somebody waits; none at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._stopped or len(self._pending) >= size or (self._waited and self._pending)
            )
            if self._stopped:
                return []
            batch, self._pending = self._pending[:size], self._pending[size:]
            self._busy = True
            return batch

    def _caption(self, captioner: Captioner, batch: list[dict[str, Any]]) -> None:
        shown = [next(stored_pixels([row], {row["source"]: row["root"]}, self._max_pixels)) for row in batch]
        there = [(row["sha256"], pixels) for row, pixels in zip(batch, shown, strict=True) if pixels is not None]
        said = captioner.caption([pixels for _, pixels in there])
        made = {sha256: caption for (sha256, _), caption in zip(there, said, strict=True)}
        self._keep(self._file(captioner), made)
        with self._changed:
            self._made |= made

    def _keep(self, file: Path | None, made: Mapping[str, str]) -> None:
        """Append to the file; where it cannot be written, nothing more is kept: a later run captions again."""
        if file is None:
            return
        lines = "".join(json.dumps({"sha256": key, "caption": value}) + "\n" for key, value in made.items())
        try:
            file.parent.mkdir(exist_ok=True)
            with file.open("ab") as out:
                out.write(lines.encode())
        except OSError as error:
            _LOG.warning("captions are not kept for later runs: %s", error)
            self._folder = None


def _read(file: Path | None) -> dict[str, str]:
    """Return the captions of a file; lines that are damaged, or cut off by a kill, are passed over."""
    made: dict[str, str] = {}
    try:
        lines = file.read_bytes().splitlines() if file and file.exists() else []
    except OSError as error:
        _LOG.warning("captions of earlier runs are not used: %s", error)
        return made
    for line in lines:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue
        sha256, caption = (row.get("sha256"), row.get("caption")) if isinstance(row, dict) else (None, None)
        if isinstance(sha256, str) and isinstance(caption, str):
            made[sha256] = caption
    return made


def opened(engine: Engine) -> Captions:
    """Return the captions of an engine's recipe; the first call starts the thread, which loads the model."""
    if engine.captions is None:
        model, folder = engine.recipe.mend.captioner, engine.writer.path / CAPTIONS
        engine.captions = Captions(model, folder, engine.recipe.limits.max_pixels)
    return engine.captions


def offer(engine: Engine, table: Any = None) -> None:
    """Ask for captions of what the caption gate refused: of a batch's Arrow table, or of the pool."""
    if not (engine.recipe.mend.captioner and engine.recipe.clean.captions):
        return
    if table is None:
        rows = engine.pool.frame(PLACE, where=_REFUSED).to_dicts()
    else:
        rows = [row for row in table.select([*PLACE, "reason"]).to_pylist() if row["reason"] == "caption_mismatch"]
    if rows:
        opened(engine).offer(rows, engine.state.sources)


def close(engine: Engine) -> None:
    """End the thread, if there is one."""
    if engine.captions is not None:
        engine.captions.close()
        engine.captions = None
