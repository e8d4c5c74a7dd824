"""Where samples come from: every kind in `registry.KINDS`, told apart by what is there.

Every source yields its rows in a fixed order and can begin at any of them without reading the images before it. What
a source itself knows to be wrong with a row (`missing_file`, `missing_image`, `unreadable_file`, `outside_root`,
`download_failed`, `duplicate_key`) is that sample's `problem`; a source that cannot be read at all is a SourceError.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from curate.errors import RemoteError, SourceError
from curate.remote import Place, Remote, place
from curate.samples import Source
from curate.sources.columns import Columns
from curate.sources.listing import Names
from curate.sources.registry import Kind, adapt, kind_named, list_kinds, sniff

__all__ = ["Columns", "list_kinds", "open_sources"]

_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<words>[^{}]*,[^{}]*))\}")
_MOST_EXPANSIONS = 1_000_000


def open_sources(
    paths: Sequence[object],
    columns: Columns | None = None,
    saved: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> list[Source]:
    """Return the sources that some paths stand for, in the order of the paths; each file or folder once.

    A path is a file, a folder, or a pattern such as `shards/{00000..00099}.tar`, on disk or behind a URL such
    as `s3://bucket/shards` (of a web server, `https://`, files only). What it holds is told by a look at it: see
    `registry.KINDS`; kind: the name of the kind that it is. What is no path goes through `registry.adapt`.
    saved: {id: root} of the sources that a pool knows; they keep their ids, and no other source gets one of them.

    Raises SourceError if a path is missing, unreadable, empty or of an unknown kind, or lacks a named column;
    UsageError if there is no such kind.
    """
    columns = columns or Columns()
    wanted = kind_named(kind) if kind else None
    found: dict[Place | int, tuple[Kind, Place] | Source] = {}  # by what they resolve to
    names = Names(saved or {})
    try:
        for given in paths:
            if not isinstance(given, (str, Path, Remote)):
                source = adapt(given, columns)
                names.check_root(source.id, source.root)
                found[id(given)] = source
                continue
            for path in _expand(given):
                for one, part in sniff(path, columns, wanted):
                    found.setdefault(part.resolve(), (one, part))
        places = [at for at in found if not isinstance(at, int)]
        _check_apart(places)
        opened = [
            partial(_same, one) if not isinstance(one, tuple) else _open(*one, columns, names) for one in found.values()
        ]
        if not any(isinstance(at, Remote) for at in places):
            return _distinct([make() for make in opened])
        with ThreadPoolExecutor(16, "curate-open") as threads:  # not those of the requests that each waits for
            return _distinct(list(threads.map(lambda make: make(), opened)))
    except RemoteError as error:
        raise SourceError(str(error)) from None


def _check_apart(paths: Iterable[Place]) -> None:
    """Raise SourceError where URLs differ only in what is never stored: their samples could not be told apart."""
    [(told, times)] = Counter(map(str, paths)).most_common(1) or [("", 0)]
    if times > 1:
        raise SourceError(
            f"{times} of the URLs given are {told} but for a query that holds a signature or key: such queries are not"
            " stored, so their samples could not be told apart; give one of them, or copy the files"
        )


def _open(kind: Kind, path: Place, columns: Columns, names: Names) -> Callable[[], Source]:
    """Name one source, its own folder resolved, and return what opens it. A link to a file keeps its name."""
    if columns.images is not None and kind.name != "coco":
        raise SourceError(f"{path} is read as {kind.name}: --images is for COCO files only")
    if kind.root is None and path.is_dir():
        folder = path.resolve()
        return partial(kind.open, folder, columns, names.of_folder(folder))
    path = path.resolve() if isinstance(path, Remote) else path.parent.resolve() / path.name
    root = path.parent if kind.root is None else kind.root(path)
    return partial(kind.open, path, columns, names.of_file(path, root))


def _distinct(sources: list[Source]) -> list[Source]:
    """Return the sources. Raises SourceError if two have one id, as objects in memory may."""
    [(name, times)] = Counter(source.id for source in sources).most_common(1) or [("", 0)]
    if times > 1:
        raise SourceError(f"{times} of the sources have the id {name!r}: give them other names")
    return sources


def _same(source: Source) -> Source:
    return source


def _expand(given: str | Place) -> Iterator[Place]:
    """Yield the paths of a brace pattern, `{000..123}` or `{a,b}`, in order; a file of that very name comes first."""
    whole, pattern = place(given), str(given)
    match = None if isinstance(given, Remote) else _BRACES.search(pattern)
    if match is None or (isinstance(whole, Path) and _exists(whole)):
        yield whole
        return
    for word in _words(match):
        yield from _expand(pattern[: match.start()] + word + pattern[match.end() :])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _words(match: re.Match[str]) -> Iterator[str]:
    if match["words"] is not None:
        yield from match["words"].split(",")
        return
    first, last = int(match["first"]), int(match["last"])
    if abs(last - first) >= _MOST_EXPANSIONS:
        raise SourceError(f"the pattern {match[0]} stands for {abs(last - first) + 1:,} paths: that is too many")
    width = len(match["first"]) if match["first"].startswith("0") or match["last"].startswith("0") else 0
    step = 1 if first <= last else -1
    for number in range(first, last + step, step):
        yield str(number).zfill(width)
