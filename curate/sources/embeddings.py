"""Sources that carry embeddings, so that whole pools are curated without an image: DataComp's metadata shards,
clip-retrieval's folders, and arrays of numpy. Only headers and footers are read until rows are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from curate.errors import SourceError
from curate.remote import Place
from curate.samples import Features, Sample
from curate.sources.aligned import Part, TableFile, make_part, same_dims, samples
from curate.sources.columns import Columns
from curate.sources.listing import Entry, fingerprint, is_there, list_folder, stat_entry
from curate.sources.look import Look
from curate.sources.records import TABLES, read_outline
from curate.sources.vectors import VectorFile, members

_SETS = ("l14", "b32")  # DataComp's, the better encoder first
_ARRAYS = (".npy", ".npz")
_PART = re.compile(r"img_emb_(\d+)\.npy")


class _Opened(NamedTuple):
    """What some files hold: the features' name, parts, what each is called in errors, and all files."""

    name: str
    parts: list[Part]
    called: list[str]
    files: list[Place]


_Opener = Callable[[Place, Columns, str], _Opened]


class EmbeddingFiles:
    """The rows of arrays and of the tables beside them, in their order; see `aligned.samples` for keys and problems."""

    def __init__(self, kind: str, path: Place, columns: Columns, name: str, opener: _Opener, asked: str = "") -> None:
        self.kind, self.id = kind, name
        self.root = str(path if path.is_dir() else path.parent)
        self._path, self._columns, self._opener = path, columns, opener
        opened = opener(path, columns, asked)
        same_dims(opened.parts, opened.called)
        self._parts = opened.parts
        first = self._parts[0]
        self.features = Features(opened.name, first.image.dim, first.text.dim if first.text else 0)
        self.count: int | None = sum(part.image.rows for part in self._parts)
        self.fingerprint = fingerprint(columns, self._entries(opened.files))

    def _entries(self, files: Sequence[Place]) -> Iterator[Entry]:
        yield Entry(self.features.name, self.features.image, self.features.text)
        for file in files:
            name = file.name if file.parent == self._path.parent else f"{file.parent.name}/{file.name}"
            yield stat_entry(file, name) or Entry(name, -1, -1)

    def named(self, name: str) -> EmbeddingFiles:
        """Return the source with the features of this name, or with its nameless ones under it; SourceError if none."""
        return EmbeddingFiles(self.kind, self._path, self._columns, self.id, self._opener, name)

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are read."""
        return samples(self._parts, self.id, start)


# DataComp: x.parquet and x.npz with the members b32_img, b32_txt, l14_img, l14_txt


def find_datacomp(look: Look) -> list[Place] | str:
    """Return the shards of a folder, or the shard that a file belongs to."""
    if not look.is_folder:
        if look.path.suffix.lower() not in (".parquet", ".npz"):
            return "does not end in .parquet or .npz"
        shard, table = look.path.with_suffix(".npz"), look.path.with_suffix(".parquet")
        if is_there(shard) and is_there(table):
            return [shard] if _sets(members(shard)) else "has an .npz without members like l14_img"
        if look.path.suffix.lower() == ".parquet" and _is_metadata(look.path):
            return [shard]  # which is missing, as opening it will say; the table alone would mean millions of downloads
        return "has no .npz and .parquet of the same name side by side"
    arrays, tables = look.ending(".npz"), {item.name.rpartition(".")[0] for item in look.ending(".parquet")}
    pairs = [item for item in arrays if item.name.rpartition(".")[0] in tables]
    if not (pairs and _sets(members(pairs[0]))) and not (tables and _is_metadata(look.ending(".parquet")[0])):
        return "holds no .npz with members like l14_img beside a .parquet of the same name"
    shards = {item.with_suffix(".npz") for item in look.ending(".npz", ".parquet")}
    return sorted(shards, key=lambda path: path.name)


def open_datacomp(path: Place, columns: Columns, name: str) -> EmbeddingFiles:
    """Return the source of one shard of DataComp's metadata, given its .npz."""
    return EmbeddingFiles("datacomp", path, columns, name, _open_datacomp)


def _open_datacomp(path: Place, columns: Columns, asked: str) -> _Opened:
    table = path.with_suffix(".parquet")
    for file, other in ((path, table), (table, path)):
        if not is_there(file):
            advice = "; to have the images of its URLs fetched instead, give --source table" if other == table else ""
            raise SourceError(f"{other} has no {file.name} beside it: the shard is incomplete{advice}")
    name, image, text = _chosen(path, asked)
    if not text:
        raise SourceError(f"{path} has {image} but no {name}_txt: the shard is incomplete")
    files = VectorFile(path, image), VectorFile(path, text)
    return _Opened(name, [make_part(*files, TableFile(table), columns, str(path))], [str(path)], [path, table])


def _is_metadata(table: Place) -> bool:
    """Tell whether a Parquet file has the columns of DataComp's metadata."""
    try:
        seen, _ = read_outline(table)
    except SourceError:
        return False  # whoever opens it will say why
    return {"uid", "url", "text", *(f"clip_{name}_similarity_score" for name in _SETS)} <= set(seen)


def _sets(names: Sequence[str]) -> list[str]:
    """Return the feature sets of an .npz with members like `l14_img`, the better first."""
    found = {name.removesuffix("_img") for name in names if name.endswith("_img")}
    return [name for name in _SETS if name in found] + sorted(found.difference(_SETS))


def _chosen(path: Place, asked: str) -> tuple[str, str, str]:
    """Return the features' name, the image member, and the text member or "" of an .npz."""
    names = members(path)
    if sets := _sets(names):
        name = asked or sets[0]
        if name not in sets:
            raise SourceError(f"{path} has no features {name!r}; it has: {', '.join(sets)}")
        return name, f"{name}_img", f"{name}_txt" if f"{name}_txt" in names else ""
    if "image" in names:
        return asked, "image", "text" if "text" in names else ""
    if len(names) != 1:
        raise SourceError(
            f"{path} has the arrays {', '.join(names) or 'none'}; embeddings are `image` (and `text`), or the only one"
        )
    return asked, names[0], ""


# Arrays of numpy: x.npy or x.npz, with x.parquet, .csv, .tsv or .jsonl if there is one


def find_arrays(look: Look) -> list[Place] | str:
    """Return an array file itself, or those of a folder that holds no image."""
    arrays = look.ending(*_ARRAYS)
    if not arrays:
        return "holds no .npy or .npz" if look.is_folder else "does not end in .npy or .npz"
    if look.is_folder and look.has_image:
        return "holds images"
    stems = {array.with_suffix("").name for array in arrays}
    if look.is_folder:
        apart = [table for table in look.ending(*TABLES) if table.with_suffix("").name not in stems]
        look.warn_unread(apart, "a table must have the name of its array")
    return arrays


def open_arrays(path: Place, columns: Columns, name: str) -> EmbeddingFiles:
    """Return the source of an .npy or .npz file."""
    return EmbeddingFiles("numpy", path, columns, name, _open_arrays)


def _open_arrays(path: Place, columns: Columns, asked: str) -> _Opened:
    tables = [table for suffix in TABLES if is_there(table := path.with_suffix(suffix))]
    if len(tables) > 1:
        raise SourceError(f"{path} has several tables beside it ({', '.join(t.name for t in tables)}): keep one")
    name, image, text = _chosen(path, asked) if path.suffix.lower() == ".npz" else (asked, "", "")
    if image == f"{name}_img" and not tables:
        raise SourceError(f"{path} has {image}, as DataComp's metadata, and no table beside it")
    captions, rows = VectorFile(path, text) if text else None, TableFile(tables[0]) if tables else None
    part = make_part(VectorFile(path, image), captions, rows, columns, str(path))
    return _Opened(name, [part], [str(path)], [path, *tables])


# clip-retrieval: img_emb/img_emb_{i}.npy, text_emb/text_emb_{i}.npy, metadata/metadata_{i}.parquet


def find_clip_retrieval(look: Look) -> list[Place] | str:
    """Return a folder with `img_emb` in it."""
    if not look.is_folder:
        return "is a file, not a folder"
    return [look.path] if any(item.name == "img_emb" for item in look.folders) else "holds no folder img_emb"


def open_clip_retrieval(path: Place, columns: Columns, name: str) -> EmbeddingFiles:
    """Return the source of a folder that `clip-retrieval inference` wrote, all parts in the order of their numbers."""
    return EmbeddingFiles("clip-retrieval", path, columns, name, _open_clip_retrieval)


def _open_clip_retrieval(path: Place, columns: Columns, asked: str) -> _Opened:
    images = {match[1]: item for item in list_folder(path / "img_emb") if (match := _PART.fullmatch(item.name))}
    if not images:
        raise SourceError(f"{path / 'img_emb'} holds no img_emb_0.npy, img_emb_1.npy, …")
    texts, tables = (
        {item.name: item for item in list_folder(path / folder)} if (path / folder).is_dir() else {}
        for folder in ("text_emb", "metadata")
    )
    parts, files = [], []
    for number in sorted(images, key=lambda text: (int(text), text)):
        text = _beside(texts, f"text_emb_{number}.npy", images[number])
        table = _beside(tables, f"metadata_{number}.parquet", images[number])
        image, captions = VectorFile(images[number]), VectorFile(text) if text else None
        parts.append(make_part(image, captions, TableFile(table) if table else None, columns, str(images[number])))
        files += [file for file in (images[number], text, table) if file is not None]
    return _Opened(asked, parts, [str(part.image) for part in parts], files)


def _beside(folder: dict[str, Place], name: str, part: Place) -> Place | None:
    """Return a file of a part, None where the folder that should hold it is empty or not there."""
    if folder and name not in folder:
        raise SourceError(f"{part} has no {name} beside it: the part is incomplete")
    return folder.get(name)
