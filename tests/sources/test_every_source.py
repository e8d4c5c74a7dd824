"""What every kind of source promises."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from source_cases import CASES, Case
from stores import upload

from curate.errors import SourceError, UsageError
from curate.samples import Sample, Source, content_hash
from curate.sources import coco, list_kinds, open_sources, shard_index
from curate.stored import read_stored

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)


def opened(case: Case, path: Path) -> Source:
    (source,) = open_sources([path], case.columns)
    return source


@pytest.fixture
def made(case: Case, tmp_path: Path) -> Path:
    return case.make(tmp_path)


@every
def test_kind_is_told_and_listed(case: Case, made: Path) -> None:
    source = opened(case, made)
    assert source.kind == case.kind
    assert case.kind in [kind["name"] for kind in list_kinds()]
    (forced,) = open_sources([made], case.columns, kind=case.kind)
    assert list(forced.rows()) == list(source.rows())


@every
def test_bad_rows_are_counted_with_their_problem(case: Case, made: Path) -> None:
    assert Counter(sample.problem for sample in opened(case, made).rows()) == Counter(case.problems)
    assert [sample.problem for sample in opened(case, made).rows()] == list(case.problems)


@every
def test_order_is_fixed_and_every_seek_is_exact(case: Case, made: Path) -> None:
    source = opened(case, made)
    samples = list(source.rows())
    assert source.count == len(samples) == len(case.problems)
    assert list(opened(case, made).rows()) == samples
    for start in range(len(samples) + 2):
        assert list(source.rows(start)) == samples[start:]


@every
def test_bytes_are_found_again(case: Case, made: Path) -> None:
    source = opened(case, made)
    good = [sample for sample in source.rows() if not sample.problem]
    assert all(sample.data and sample.size == len(sample.data) for sample in good)
    for sample in [*good, *reversed(good)]:
        assert sample.source == source.id
        found = read_stored(stored(sample), {source.id: source.root})
        assert found == sample.data
        assert content_hash(found) == content_hash(sample.data)


def stored(sample: Sample) -> dict[str, object]:
    return {name: value for name, value in asdict(sample).items() if name in ("source", "path", "offset", "size")}


@every
def test_keys_are_unique_but_for_those_refused(case: Case, made: Path) -> None:
    keys = [sample.key for sample in opened(case, made).rows() if sample.problem != "duplicate_key"]
    assert len(set(keys)) == len(keys)


@every
def test_fingerprint_changes_with_a_file_and_only_then(case: Case, made: Path) -> None:
    before = opened(case, made)
    folder = made if made.is_dir() else made.parent
    (folder / "notes.md").write_text("of no source")
    assert opened(case, made).fingerprint == before.fingerprint
    case.change(made)
    after = opened(case, made)
    assert (after.id, after.root) == (before.id, before.root)
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("case", [case for case in CASES if case.empty], ids=lambda case: case.make.__name__)
def test_a_source_without_rows_is_empty(case: Case, tmp_path: Path) -> None:
    assert case.empty is not None
    source = opened(case, case.empty(tmp_path))
    assert (source.kind, source.count or 0, list(source.rows())) == (case.kind, 0, [])


@every
def test_a_store_gives_the_rows_of_a_local_copy(case: Case, made: Path, bucket: str, tmp_path: Path) -> None:
    local = [(s.key, s.data, s.caption) for s in opened(case, made).rows() if not s.problem]
    at = upload(tmp_path, f"{bucket}/{case.make.__name__}")
    where = f"{at}/{made.relative_to(tmp_path)}".removesuffix("/.")
    if case.make.__name__ == "hf_saved":
        with pytest.raises(SourceError, match="Arrow files are read from disk only"):
            open_sources([where], kind="hf")
        return
    (source,) = open_sources([where], case.columns)
    samples = [sample for sample in source.rows() if not sample.problem]
    assert [(s.key, s.data, s.caption) for s in samples] == local
    assert all(read_stored(stored(s), {source.id: source.root}) == s.data for s in samples)


@every
def test_ids_hold_no_absolute_path_and_stay_where_the_collection_moves(case: Case, made: Path, tmp_path: Path) -> None:
    source = opened(case, made)
    assert str(tmp_path) not in source.id
    assert Path(source.root).is_absolute()
    (again,) = open_sources([made], case.columns, saved={source.id: source.root})
    assert again.id == source.id
    (moved,) = open_sources([made], case.columns, saved={source.id: str(tmp_path / "was" / "here")})
    assert moved.id == source.id


@every
def test_another_kind_is_refused_with_the_reason(case: Case, made: Path) -> None:
    others = [kind["name"] for kind in list_kinds() if kind["name"] != case.kind]
    refused = 0
    for other in others:
        try:
            [list(source.rows()) for source in open_sources([made], kind=other)]
        except SourceError as error:
            refused += 1
            assert str(made.name) in str(error) or made.parent.name in str(error)  # noqa: PT017
    assert refused >= len(others) - 2


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kind of source 'zip'; there are: tar, "):
        open_sources([tmp_path], kind="zip")


def test_a_damaged_table_beside_images_costs_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    (source,) = open_sources([tmp_path])
    assert source.kind == "folder"


def test_many_folders_and_files_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (tmp_path / f"class{number}").mkdir()
        (tmp_path / f"class{number}" / "a.jpg").write_bytes(b"x")
        (tmp_path / f"{number}.json").write_text('{"images": []}')
    opened_files = []
    monkeypatch.setattr(coco, "head", lambda path, size: opened_files.append(path) or b"")
    monkeypatch.setattr(shard_index, "head", lambda path, size: opened_files.append(path) or b"")
    (source,) = open_sources([tmp_path])
    assert (source.kind, source.count, opened_files) == ("folder", 40, [])
