"""The export itself: checks, shards, what was missing, and errors in words."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import CurateError, ExportError, UsageError
from curate.exports.folder import Folder, exclusive, sync
from curate.exports.formats import FORMATS, Format
from curate.exports.options import Options, parse_size
from curate.exports.subset import Subset
from curate.exports.task import Progress, Shard, Task, Writer
from curate.files import sync_folder
from curate.pool.trouble import way_out
from curate.remote import Place, Remote, place
from curate.version import __version__


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did. `samples` counts repeats, `files` what they are in, `refused` rows by reason.

    `renamed` rows bear a name that is not their key, as keys must not collide or steer a file system; 0 where names
    play no part. `report` is the file that lists the refused rows, if there are any.
    """

    out: str
    format: str
    rows: int
    samples: int
    files: int
    renamed: int
    refused: dict[str, int]
    report: str | None
    seconds: float = 0.0


def export(
    manifest: str | Path,
    to: str,
    out: str | Path,
    *,
    roots: Mapping[str, str] | None = None,
    skip_missing: bool = False,
    repeats: bool = False,
    rounding: str = "",
    seed: int | None = None,
    shard_size: int | str | None = None,
    copy: bool = True,
    progress: Progress | None = None,
) -> Exported:
    """Write a manifest's rows in another format; a killed export, called again, ends with the same bytes.

    to: a name in `curate.exports.formats.FORMATS`; out: a file or folder, as the format has it; roots: {old: new},
    where folders of the sources lie now; skip_missing: leave out images that are gone or have changed; repeats,
    rounding, seed, shard_size, copy: see `Options`; progress: called with rows done and rows in all.

    Raises UsageError for an unknown format, or an option that it does not take; ManifestError; ExportError where
    `out` holds something else, cannot be written, or images are missing, which a report beside it lists.
    """
    began = time.monotonic()
    form = _form(to)
    given = {"repeats": repeats, "rounding": rounding, "seed": seed, "shard_size": parse_size(shard_size), "copy": copy}
    options = Options(**given)  # type: ignore[arg-type]
    _check_options(to, form, options)
    subset = Subset(manifest, roots)
    if subset.is_cropped and not form.crops:
        able = ", ".join(name for name, other in FORMATS.items() if other.crops)
        raise ExportError(f"the rows are crops, and {to} holds whole images only; these hold boxes: {able}")
    target = place(out)
    if isinstance(target, Remote) and not form.urls:
        raise ExportError(f"{to} is written to local folders only, not to {target}")
    task = Task(subset, options, target, form.names, progress)
    with _named(target):
        done = _write_list(task, to, form) if form.kind == "list" else _write_shards(task, to, form, skip_missing)
    if done.refused and not skip_missing:
        raise ExportError(_told(done, form))
    return dataclasses.replace(done, seconds=round(time.monotonic() - began, 3))


def _form(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


def _check_options(name: str, form: Format, options: Options) -> None:
    plain = Options()
    for key in Options.__dataclass_fields__:
        if getattr(options, key) != getattr(plain, key) and key not in form.options:
            raise UsageError(f"{name} takes no {key.replace('_', '-')}")
    if options.rounding and "repeats" in form.options and not options.repeats:
        raise UsageError("rounding makes weights numbers of repeats: it needs repeats")


def _write_list(task: Task, name: str, form: Format) -> Exported:
    """Write a format that is one file: to a file beside it, or a temporary one for a store, and then into place."""
    refused: Counter[str] = Counter()
    with _beside(task.out) as folder:
        report = folder / f".{task.out.name}.problems"
        with report.open("wb") as lines:

            def refuse(ordinal: int, row: Mapping[str, Any], reason: str) -> None:
                refused[reason] += 1
                lines.write(_line([ordinal, row["uid"], row["source"], row["key"], reason, ""]))

            made = folder / f".{task.out.name}.export"
            samples = _load(form)(task).write(made, refuse)
        _publish(made, task.out)
        where = _report(task.out, report, refused)
    return Exported(str(task.out), name, task.subset.rows, samples, 1, 0, dict(refused), where)


@contextlib.contextmanager
def _beside(out: Place) -> Iterator[Path]:
    """Yield a local folder in which to make a file: on the same disk if it is local, and locked."""
    if isinstance(out, Remote):
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    if out.is_dir():
        raise ExportError(f"{out} is a folder; give a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.curate-export"
    folder.mkdir(exist_ok=True)
    with exclusive(folder / "lock", out):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(made: Path, out: Place) -> None:
    """Move a file into place, unless there is another one already. Raises ExportError when that differs."""
    if out.exists():
        if not _equal(made, out):
            raise ExportError(f"{out} exists and is another file; remove it, or choose another place")
        return
    if isinstance(out, Remote):
        out.write_file(made)
        return
    sync(made)
    made.replace(out)
    sync_folder(out.parent)


def _equal(made: Path, out: Place) -> bool:
    size = out.status().size if isinstance(out, Remote) else out.stat().st_size
    if made.stat().st_size != size:
        return False
    with made.open("rb") as first, out.open("rb") as second:
        return all(part == second.read(len(part)) for part in iter(lambda: first.read(1 << 20), b""))


def _write_shards(task: Task, name: str, form: Format, skip_missing: bool) -> Exported:
    """Write what is not in place yet, shard by shard, and what spans them once all are."""
    is_listing = form.kind == "listing"
    at = task.out.parent / f"{task.out.stem}-images" if is_listing else task.out
    folder = Folder(at, _job(task, name, form))
    with folder.opened(), contextlib.ExitStack() as stack:
        _check_listing(task.out, folder, is_listing, skip_missing)
        if folder.finished is not None and (skip_missing or not folder.finished["figures"]["refused"]):
            return Exported(str(task.out), name, **folder.finished["figures"])
        if not skip_missing:
            folder.reopen()  # images that were missing may be back
        writer: Writer = _load(form)(task)
        refused: Counter[str] = Counter()
        lines = stack.enter_context((folder.stage / "problems").open("wb"))
        for number, (start, stop) in enumerate(writer.plan()):
            problems = _one_shard(Shard(number, start, stop, folder.stage, task), writer, folder, skip_missing)
            for problem in problems:
                refused[problem[4]] += 1
                lines.write(_line(problem))
        lines.close()
        report = _report(task.out, folder.stage / "problems", refused)
        samples, files = (sum(entry[key] for entry in folder.done.values()) for key in ("samples", "files"))
        figures = {
            "rows": task.subset.rows,
            "samples": samples,
            "files": files,
            "renamed": task.names.renamed if form.names and (files or not is_listing) else 0,
            "refused": dict(refused),
            "report": report,
        }
        if skip_missing or not refused:
            _finish(task, folder, writer, figures, is_listing)
        return Exported(str(task.out), name, **figures)


def _one_shard(shard: Shard, writer: Writer, folder: Folder, skip_missing: bool) -> list[Any]:
    """Write a shard unless it is in place, and return its problems; with any, it is put in place if they may be."""
    if entry := folder.done.get(shard.number):
        shard.tick(shard.stop - 1)
        return list(folder.entry(shard.number)["problems"]) if entry["problems"] else []
    notes = writer.shard(shard)
    if shard.problems and not skip_missing:
        for path in shard.staged.values():
            path.unlink(missing_ok=True)
        return shard.problems
    entry = {"samples": shard.samples, "bytes": shard.bytes, "files": len(shard.staged) + shard.files, "notes": notes}
    folder.publish(shard.number, shard.staged, {**entry, "problems": shard.problems})
    return shard.problems


def _finish(task: Task, folder: Folder, writer: Writer, figures: dict[str, Any], is_listing: bool) -> None:
    writer.finish(folder)
    if is_listing:
        try:
            _publish(folder.stage / "listing", task.out)
        except ExportError:
            if not figures["files"]:
                folder.discard()
            raise
        if not figures["files"]:
            folder.discard()
            return
    folder.finish({"figures": figures})


def _check_listing(out: Place, folder: Folder, is_listing: bool, skip_missing: bool) -> None:
    """Raise ExportError where a finished listing is gone, or lacks rows that are wanted now: it is not replaced."""
    if folder.finished is None or not is_listing:
        return
    refused = sum(folder.finished["figures"]["refused"].values())
    completes = refused and not skip_missing
    if completes and out.exists():
        raise ExportError(f"{out} lacks {refused} rows that were left out; remove it, and the same command adds them")
    if not completes and not out.exists():
        raise ExportError(f"{out} is gone, but the images beside it are not; remove {folder.at} and export again")


def _job(task: Task, name: str, form: Format) -> dict[str, Any]:
    """Return what makes two exports the same one."""
    options = dataclasses.asdict(task.options)
    job = {"format": name, "manifest": task.subset.digest, "options": options, "writer": __version__}
    return job | ({"roots": task.subset.roots} if form.roots else {})


def _load(form: Format) -> Any:
    module, _, name = form.writer.partition(":")
    return getattr(importlib.import_module(module), name)


def _line(problem: list[Any]) -> bytes:
    names = ("row", "uid", "source", "key", "reason", "detail")
    return json.dumps(dict(zip(names, problem, strict=True)), ensure_ascii=False).encode() + b"\n"


def _report(out: Place, made: Path, refused: Counter[str]) -> str | None:
    """Put the list of refused rows beside the output; take an earlier one away if there are none."""
    report = out.parent / f"{out.name}.problems.jsonl"
    if not refused:
        report.unlink(missing_ok=True)
        return None
    if isinstance(report, Remote):
        report.write_file(made)
    else:
        made.replace(report)
    return str(report)


def _told(done: Exported, form: Format) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done.refused.items()))
    what = f"{sum(done.refused.values())} of {done.rows} rows cannot be exported ({reasons}), listed in {done.report}"
    stays = "the file holds the others" if form.kind == "list" else "shards without such rows are in place"
    return f"{what}; {stays}. Give `--root OLD=NEW` if the sources have moved, or leave these rows out: --skip-missing"


@contextlib.contextmanager
def _named(out: Place) -> Iterator[None]:
    """Turn what the system and the libraries raise over the output into ExportError."""
    from polars.exceptions import PolarsError

    try:
        yield
    except CurateError:
        raise
    except (OSError, ValueError, RuntimeError, PolarsError) as error:
        known = way_out(error)
        if known is None and not isinstance(error, OSError):
            raise
        raise ExportError(f"{out} cannot be written: {known or f'{error}; run the same again to go on'}") from error
