"""The formats that a manifest can be exported to."""

from __future__ import annotations

from dataclasses import dataclass

_SHARDS = frozenset({"shard_size"})
_ROUNDED = frozenset({"rounding", "seed"})
_LISTED = frozenset({"copy"})


@dataclass(frozen=True, slots=True)
class Format:
    """What a format's writer can do.

    `writer`: "module:class"; `kind`: "list" (one file, from the manifest alone), "folder", or "listing" (one file, and
    beside it a folder with the images that are not files of their own); `crops`: it holds boxes; `roots`: it names
    files by where the sources lie; `urls`: it can be written to an object store; `names`: rows get file names;
    `options`: those that it takes.
    """

    summary: str
    writer: str
    kind: str = "folder"
    crops: bool = False
    roots: bool = False
    urls: bool = True
    names: bool = False
    options: frozenset[str] = frozenset()


def _at(module: str, name: str) -> str:
    return f"curate.exports.{module}:{name}"


FORMATS: dict[str, Format] = {
    "coco": Format(
        "COCO annotations: boxes, categories, captions",
        _at("coco", "Coco"),
        "listing",
        crops=True,
        roots=True,
        urls=False,
        names=True,
        options=_LISTED,
    ),
    "copy": Format("image files, in a sub-folder for each label", _at("files", "Copies"), names=True),
    "csv": Format("every column, as CSV", _at("lines", "Csv"), "list", crops=True, roots=True),
    "datacomp": Format("DataComp's sorted array of uids", _at("datacomp", "DataComp"), "list", options=_ROUNDED),
    "fiftyone": Format(
        "FiftyOne's image classification or detection dataset",
        _at("fiftyone", "FiftyOne"),
        crops=True,
        roots=True,
        urls=False,
        names=True,
        options=_LISTED,
    ),
    "hf": Format(
        "a folder for Hugging Face's load_dataset",
        _at("hf", "HuggingFace"),
        crops=True,
        names=True,
        options=_SHARDS,
    ),
    "jsonl": Format("every column, as JSON lines", _at("lines", "JsonLines"), "list", crops=True, roots=True),
    "lance": Format(
        "a Lance table with the images", _at("lance_table", "Lance"), crops=True, urls=False, options=_SHARDS
    ),
    "litdata": Format("chunks for LitData's StreamingDataset", _at("litdata", "LitData"), crops=True, options=_SHARDS),
    "mds": Format("shards for MosaicML's StreamingDataset", _at("mds", "Mds"), crops=True, options=_SHARDS),
    "open-clip-csv": Format(
        "OpenCLIP's table of files and captions",
        _at("open_clip_csv", "OpenClipCsv"),
        "listing",
        roots=True,
        urls=False,
        names=True,
        options=_LISTED,
    ),
    "symlinks": Format(
        "links to image files, in a sub-folder for each label",
        _at("files", "Links"),
        roots=True,
        urls=False,
        names=True,
    ),
    "txt": Format("file names, as Lightly takes them", _at("lines", "Names"), "list"),
    "wds-index": Format("DALI indexes of the original tars, and their list", _at("wds_index", "WdsIndex"), roots=True),
    "webdataset": Format(
        "tars of the chosen samples",
        _at("webdataset", "WebDataset"),
        names=True,
        options=_SHARDS | _ROUNDED | {"repeats"},
    ),
}
