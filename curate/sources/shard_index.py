"""The `index.json` of MDS (mosaicml-streaming) and LitData: the shards there are, and the fields of their samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.cells.mds import CODECS
from curate.cells.packed import Column, mds_columns
from curate.remote import Place, place
from curate.sources.listing import is_outside, is_there, locate
from curate.sources.look import Look, head
from curate.sources.records import named_errors

INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its path below the root, its samples, their fields. is_packed: it is compressed as a whole."""

    path: str
    samples: int
    columns: Sequence[Column]
    is_packed: bool = False


def find_mds(look: Look) -> list[Place] | str:
    """Return a folder with the index of an MDS data set, or the folders in it that have one."""
    return _find(look, b'"shards"') or "holds no index.json of MDS shards"


def find_litdata(look: Look) -> list[Place] | str:
    """Return a folder with the index of a LitData data set, or the folders in it that have one."""
    return _find(look, b'"chunks"') or "holds no index.json of LitData chunks"


def _find(look: Look, word: bytes) -> list[Place]:
    if not look.is_folder:
        return []
    folders = [look.path] if any(item.name == INDEX for item in look.files) else look.few_folders
    return [folder for folder in folders if word in head(place(folder, INDEX), 1 << 12)]


def read_index(kind: str, folder: Place) -> list[Shard]:
    """Return the shards of a data set. Raises SourceError if its index cannot be read, or is of another form."""
    with named_errors(folder / INDEX):
        index = json.loads((folder / INDEX).read_text("utf-8"))
        return (_mds_shards if kind == "mds" else _litdata_shards)(index, folder)


def _mds_shards(index: Any, folder: Place) -> list[Shard]:
    """Return the shards of an MDS index. Raises ValueError if it is none, SourceError if one cannot be read."""
    out = []
    for info in _listed(index, "shards"):
        if (info.get("format"), info.get("version")) != ("mds", 2):
            raise ValueError(f"a shard is of format {info.get('format')!r}, version {info.get('version')!r}: not MDS 2")
        raw = info.get("raw_data")
        path = _inside(folder, raw.get("basename") if isinstance(raw, dict) else None)
        packed = info.get("zip_data")
        is_packed = bool(packed) and not is_there(place(folder, path))
        if is_packed:
            path = _inside(folder, packed.get("basename") if isinstance(packed, dict) else None)
            if place(path).suffix.lower() not in CODECS:
                raise ValueError(f"{path} is compressed in a way that cannot be read; decompress it")
        out.append(Shard(path, _count(info.get("samples")), mds_columns(info), is_packed))
    return out


def _litdata_shards(index: Any, folder: Place) -> list[Shard]:
    """Return the shards of a LitData index. Raises ValueError if it is none, or not to be read."""
    config = index.get("config") if isinstance(index, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("data_format"), list):
        raise ValueError("it has no config with a data_format, as an index of LitData")  # noqa: TRY004
    for word in ("compression", "ipc_compression", "encryption"):
        if config.get(word):
            raise ValueError(
                f"its chunks have {word} {config[word]!r}, under which images have no place: write it without"
            )
    encodings = [str(one) for one in config["data_format"]]
    names = _leaf_names(config.get("data_spec"), len(encodings))
    columns = [Column(name, encoding) for name, encoding in zip(names, encodings, strict=True)]
    return [
        Shard(_inside(folder, info.get("filename")), _count(info.get("chunk_size")), columns)
        for info in _listed(index, "chunks")
    ]


def _leaf_names(spec: object, count: int) -> list[str]:
    """Return the names of the fields of a LitData sample, `a.b` where they are nested, numbers in lists."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        children = node["children_spec"]
        if not children:
            yield prefix or "0"
            return
        keys = json.loads(node["context"]) if isinstance(node["context"], str) else None
        keys = keys if isinstance(keys, list) and len(keys) == len(children) else range(len(children))
        for key, child in zip(keys, children, strict=True):
            yield from walk(child, f"{prefix}.{key}" if prefix else str(key))

    try:
        names = list(walk(json.loads(spec)[1], "")) if isinstance(spec, str) else []
    except (ValueError, LookupError, TypeError, RecursionError):
        names = []
    return names if len(set(names)) == count else [str(number) for number in range(count)]


def _listed(index: Any, name: str) -> list[dict[str, Any]]:
    found = index.get(name) if isinstance(index, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"it has no list {name!r}")
    return found


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError(f"a shard is said to hold {value!r} samples")
    return value


def _inside(folder: Place, name: object) -> str:
    """Return a shard's path below the folder. Raises ValueError for what is none, or leads out of it."""
    path = locate(str(folder), name) if isinstance(name, str) and name else None
    if path is None or is_outside(path):
        raise ValueError(f"it names a shard {name!r}, which is not in its folder")
    return path
