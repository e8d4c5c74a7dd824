"""Every kind of source: its name, how it is told from the others, and what opens it. `curate sources` prints it.

To add a kind, write a `find` and a class with the members of `curate.samples.Source`, and add a row to KINDS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.errors import SourceError, UsageError
from curate.remote import Place
from curate.samples import Source
from curate.sources.coco import CocoSource, coco_root, find_coco
from curate.sources.columns import Columns
from curate.sources.datasets_object import DatasetSource, is_dataset
from curate.sources.embeddings import (
    find_arrays,
    find_clip_retrieval,
    find_datacomp,
    open_arrays,
    open_clip_retrieval,
    open_datacomp,
)
from curate.sources.folders import find_folder, open_folder
from curate.sources.huggingface import ImageTable, LanceTable, find_image_tables, find_lance
from curate.sources.look import Look, is_packed
from curate.sources.shard_index import find_litdata, find_mds
from curate.sources.shards import open_litdata, open_mds
from curate.sources.tables import TableSource, find_tables
from curate.sources.tars import TarSource, find_tars


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source.

    find: the files and folders that an existing path stands for, each a source of this kind, in order; or, in words
        that follow "it", why it is none. Cheap: listings, footers and first bytes, never whole files.
    open: the source of one of them, given the columns to read and its id; SourceError if it cannot be read
    told_by: how `find` knows it, for a user
    root: the folder that paths of its samples are relative to, where that is neither the folder found nor the one that
        the file found lies in
    """

    name: str
    summary: str
    told_by: str
    find: Callable[[Look], list[Place] | str]
    open: Callable[[Place, Columns, str], Source]
    root: Callable[[Place], Place] | None = None


# The first that finds something is taken, so the narrow come before the broad.
KINDS = (
    Kind(
        "tar",
        "WebDataset or img2dataset tars, with the .parquet beside each",
        "x.tar, or a folder of tars",
        find_tars,
        TarSource,
    ),
    Kind("mds", "MDS data set of mosaicml-streaming", "a folder with index.json of shards", find_mds, open_mds),
    Kind("litdata", "LitData data set", "a folder with index.json of chunks", find_litdata, open_litdata),
    Kind(
        "lance",
        "a Lance table with a column of images",
        "x.lance, or a folder of them",
        find_lance,
        LanceTable,
        root=lambda path: path.parent,
    ),
    Kind(
        "hf",
        "Hugging Face datasets: tables with the images inside",
        ".parquet or .arrow with a column of images, a folder of them, or one with a folder `data` of them",
        find_image_tables,
        ImageTable,
    ),
    Kind(
        "coco",
        "COCO annotations: instances or captions, with images beside them or in --images",
        "a .json with lists of images and annotations, a folder of them, or one with a folder `annotations` of them",
        find_coco,
        CocoSource,
        root=coco_root,
    ),
    Kind(
        "clip-retrieval",
        "embeddings as clip-retrieval writes them; no image is read",
        "a folder with img_emb, and text_emb and metadata if there are any",
        find_clip_retrieval,
        open_clip_retrieval,
    ),
    Kind(
        "datacomp",
        "DataComp's metadata with its b32 or l14 embeddings; no image is read",
        "x.parquet and x.npz with members like l14_img side by side, or a folder of them",
        find_datacomp,
        open_datacomp,
    ),
    Kind(
        "numpy",
        "arrays of embeddings, and the table of the same name; no image is read",
        "x.npy, x.npz, or a folder of them without images",
        find_arrays,
        open_arrays,
    ),
    Kind(
        "folder",
        "images at any depth, with Hugging Face `imagefolder` metadata",
        "a folder that holds metadata.csv, .jsonl or .parquet, or image files",
        find_folder,
        open_folder,
    ),
    Kind(
        "table",
        "a table of paths or URLs",
        ".parquet, .csv, .tsv or .jsonl, or a folder of them",
        find_tables,
        TableSource,
    ),
)


def list_kinds() -> list[dict[str, str]]:
    """Return name, summary and recognition of every kind, in the order in which they are tried."""
    return [{"name": kind.name, "summary": kind.summary, "told_by": kind.told_by} for kind in KINDS]


def kind_named(name: str) -> Kind:
    """Return a kind. Raises UsageError for a name that is none."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise UsageError(f"there is no kind of source {name!r}; there are: {', '.join(kind.name for kind in KINDS)}")


def adapt(given: object, columns: Columns) -> Source:
    """Return the source that an object in memory is. Raises UsageError for what is none."""
    if is_dataset(given):
        return DatasetSource(given, columns)
    if isinstance(given, Source):
        return given
    raise UsageError(f"{type(given).__name__} is no source: give paths, URLs, or an object like curate.samples.Source")


def sniff(path: Place, columns: Columns, wanted: Kind | None = None) -> list[tuple[Kind, Place]]:
    """Return the sources that a path stands for, each with its kind: the first that fits, or the one wanted.

    Raises SourceError if the path is missing or of no kind, or why it is not of the kind wanted.
    """
    look = Look(path, columns)
    for kind in KINDS if wanted is None else (wanted,):
        found = kind.find(look)
        if not isinstance(found, str):
            return [(kind, part) for part in found]
        if wanted is not None:
            raise SourceError(f"{path} is not of the kind {kind.name!r}: it {found}")
    packed = [item for item in look.files if is_packed(item)]
    if packed:
        raise SourceError(
            f"{packed[0]} is a compressed tar, whose images have no place in the file: decompress it first"
        )
    if look.is_folder:
        raise SourceError(
            f"the folder {path} is empty of images at any depth, of tars, of tables and of whatever else"
            " `curate sources` lists"
        )
    raise SourceError(
        f"{path} is of an unknown kind (extension {path.suffix!r}); `curate sources` lists what can be read"
    )
