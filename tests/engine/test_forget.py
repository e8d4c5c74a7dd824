"""A takedown leaves nothing of a row: not in data, older versions, states, statistics or logs; and it stays away."""

import hashlib
import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from PIL import Image

import curate
from curate.errors import KeyNotFoundError, UsageError
from curate.pool import Pool, Writer
from curate.pool.takedown import PENDING

SMALL = {"limits": {"batch_size": 8}, "dedup": {"epsilon": 0.002}, "clean": {"captions": False, "labels": False}}
MARKER = "".join(
    random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=80)
)  # incompressible, so that a search proves


def png(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "PNG")
    return stream.getvalue()


def places(pool: Path, needle: str) -> list[str]:
    return [
        str(p.relative_to(pool)) for p in sorted(pool.rglob("*")) if p.is_file() and needle.encode() in p.read_bytes()
    ]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and a pool of 20 pictures, one with a caption that can be searched for, one a copy of it."""
    root = tmp_path_factory.mktemp("forget")
    files = {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(20)}
    files["30.png"] = png(files["05.jpg"])  # the same pixels in other bytes
    lines = ["file_name,caption,url"]
    for name in files:
        caption = MARKER if name == "05.jpg" else picture(int(name[:2]))[1] + f" {name}"
        lines.append(f"{name},{caption},https://{'www.bad' if name in ('07.jpg', '08.jpg') else 'good'}.example/{name}")
    write_folder(root / "source", files | {"metadata.csv": "\n".join(lines).encode()})
    curate.grow(root / "source", root / "pool", options=SMALL | {"dedup": {"epsilon": 0.002, "match": "image"}})
    curate.tag(root / "pool", "before")
    return root


@pytest.fixture
def pool(marked: Path, tmp_path: Path) -> Path:
    shutil.copytree(marked / "pool", tmp_path / "pool")
    return tmp_path / "pool"


def test_nothing_is_left_of_a_forgotten_row(pool: Path) -> None:
    uid = str(Pool.open(pool).find("05.jpg")["uid"])
    assert places(pool, MARKER)  # the same search finds it before
    done = curate.forget(pool, keys=["05.jpg"])
    assert (done.forgotten, done.tags, done.refilled) == (1, ["before"], 0)
    assert places(pool, MARKER) == []
    assert places(pool, uid) == []
    assert places(pool, "05.jpg") == []
    assert done.versions > 3
    table = Pool.open(pool).frame()
    assert table.height == 20
    assert table["row"].to_list() == list(range(20))
    assert table.filter(table["key"] == "30.png")["duplicate_of"].to_list() == [None]


def test_a_copy_moves_up_when_asked_for(pool: Path) -> None:
    done = curate.forget(pool, keys=["05.jpg"], refill=True)
    assert (done.forgotten, done.refilled) == (1, 1)
    row = Pool.open(pool).find("30.png")
    assert (row["decision"], row["duplicate_of"]) == ("admit", None)


def test_rows_that_had_duplicates_of_others_still_find_their_twin(pool: Path) -> None:
    curate.forget(pool, keys=["02.jpg"])
    answer = curate.why(pool, "30.png")
    assert answer["duplicate_of"]["key"] == "05.jpg"
    assert answer["duplicate_of"]["image_distance"] < 1e-3


def test_forgotten_rows_do_not_come_back_by_name_or_by_bytes(marked: Path, pool: Path, tmp_path: Path) -> None:
    curate.forget(pool, keys=["05.jpg"])
    other = write_folder(tmp_path / "other", {"renamed.jpg": jpeg(picture(5)[0]), "new.jpg": jpeg(picture(50)[0])})
    done = curate.grow(other, pool)
    assert (done.refused, done.admitted, done.seen) == ({"forgotten": 1}, 1, 2)
    assert Pool.open(pool).rows == 21
    shutil.copytree(marked / "source", tmp_path / "source")
    (tmp_path / "source" / "99.jpg").write_bytes(jpeg(picture(51)[0]))  # another listing: compared row by row
    again = curate.grow(tmp_path / "source", pool)
    assert again.refused.get("forgotten", 0) >= 1
    assert places(pool, MARKER) == []


def test_rows_are_named_by_domain_and_by_digest(pool: Path) -> None:
    digest = str(Pool.open(pool).find("00.jpg")["sha256"])
    assert curate.forget(pool, url_domains=["bad.example"]).forgotten == 2
    assert curate.forget(pool, sha256=[digest.upper()]).forgotten == 1
    assert Pool.open(pool).rows == 18


def test_receipt_and_bar_name_nothing(pool: Path) -> None:
    done = curate.forget(pool, keys=["05.jpg"])
    receipt = json.loads((pool / done.receipt).read_text())
    assert len(receipt["forgotten"]) == 1
    assert receipt["tags"] == ["before"]
    log = curate.log(pool)
    assert log[0]["what"] == "forget"
    assert sum(entry.get("gone", False) for entry in log) >= 4
    assert not any(MARKER in json.dumps(entry) for entry in log)


def test_going_back_before_a_takedown_is_a_named_error(pool: Path) -> None:
    curate.forget(pool, keys=["05.jpg"])
    for version in (2, "before"):
        with pytest.raises(UsageError, match="no version"):
            curate.rollback(pool, version)


def test_statistics_are_as_if_the_row_had_never_been_seen(tmp_path: Path) -> None:
    options = {"limits": {"batch_size": 32}, "clean": {"warmup": 64, "min_precision": 0.9}}
    captioned_tar(tmp_path / "s.tar", range(96))
    curate.grow(tmp_path / "s.tar", tmp_path / "pool", options=options)
    forgotten = curate.Pool.open(tmp_path / "pool").frame(["key"])["key"].to_list()[10:14]
    curate.forget(tmp_path / "pool", keys=forgotten)
    ours = curate.Pool.open(tmp_path / "pool")
    state = ours.state()
    sums = ours.sums(state["checkpoint"]["sums"]["pairs"])
    assert state["pairs"] == sums["n"]
    table = ours.frame(["counted", "caption"])
    where = "counted AND caption IS NOT NULL"
    image, text = np.sqrt(ours.embeddings("image", where=where)), ours.embeddings("text", where=where)
    assert table["counted"].sum() == image.shape[0] == sums["n"]
    np.testing.assert_allclose(sums["xy"], image.T.astype(float) @ text, atol=1e-6 * np.abs(sums["xy"]).max())


@pytest.mark.parametrize("step", ["delete", "compact_files", "cleanup_old_versions"])
def test_an_interrupted_takedown_is_finished_by_the_next_writer(
    pool: Path, marked: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lance
    from lance.dataset import DatasetOptimizer

    owners = {"compact_files": DatasetOptimizer, "delete": lance.LanceFragment}
    target = owners.get(step, lance.LanceDataset)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(target, step, killed)
        with pytest.raises(KeyboardInterrupt):
            curate.forget(pool, keys=["05.jpg"])
    curate.grow(marked / "source", pool)
    assert_taken_down(pool)
    assert not (pool / PENDING).exists()
    assert curate.forget(pool, keys=["06.jpg"]).forgotten == 1  # the very row that was named, by its new number
    with pytest.raises(KeyNotFoundError):
        Pool.open(pool).find("06.jpg")


def assert_taken_down(pool: Path) -> None:
    opened = Pool.open(pool)
    assert places(pool, MARKER) == []
    assert opened.rows == opened.state()["rows"] == 20
    assert opened.frame(["row"])["row"].to_list() == list(range(20))
    receipts = list((pool / "receipts").iterdir())
    assert len(receipts) == 1
    receipt = json.loads(receipts[0].read_text())
    assert receipt["tags"] == ["before"]
    assert len(receipt["past"]) >= 4


@pytest.mark.parametrize("again", ["rollback", "tag", "score", "forget"])
def test_any_writer_finishes_an_interrupted_takedown(pool: Path, again: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "purge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            curate.forget(pool, keys=["05.jpg"])
    if again == "rollback":
        with pytest.raises(UsageError, match="no version"):
            curate.rollback(pool, "before")
    elif again == "tag":
        curate.tag(pool, "later")
    elif again == "score":
        curate.score_pool(pool, ["novelty"])
    else:
        done = curate.forget(pool, keys=["05.jpg"])  # the same command again
        assert (done.forgotten, done.tags) == (1, ["before"])
    assert_taken_down(pool)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_takedown_that_was_not_decided_leaves_everything(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Pool.open(pool).frame()
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            curate.forget(pool, keys=["05.jpg"])
    curate.tag(pool, "later")
    assert Pool.open(pool).frame().equals(before)
    assert not (pool / "forgotten" / "bar.json").exists()
    assert {"before", "later"} <= {tag for entry in curate.log(pool) for tag in entry.get("tags", [])}


def test_rows_without_bytes_are_not_barred_for_others(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {"a.jpg": b"", "b.jpg": jpeg(picture(1)[0])})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    curate.forget(tmp_path / "pool", keys=["a.jpg"])
    done = curate.grow(write_folder(tmp_path / "t", {"c.jpg": b""}), tmp_path / "pool")
    assert done.refused == {"undecodable": 1}
    with pytest.raises(UsageError, match="no bytes at all"):
        curate.forget(tmp_path / "pool", sha256=[hashlib.sha256(b"").hexdigest()])


def test_a_label_that_only_a_forgotten_row_had_is_gone(tmp_path: Path) -> None:
    files = {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(4)}
    table = "file_name,who\n0.jpg,common\n1.jpg,common\n2.jpg,SECRETNAME\n3.jpg,common\n"
    source = write_folder(tmp_path / "s", files | {"metadata.csv": table.encode()})
    options = SMALL | {"source": {"label": "who"}}
    curate.grow(source, tmp_path / "pool", options=options)
    curate.forget(tmp_path / "pool", keys=["2.jpg"])
    assert places(tmp_path / "pool", "SECRETNAME") == []
    more = write_folder(tmp_path / "t", {"9.jpg": jpeg(picture(9)[0]), "metadata.csv": b"file_name,who\n9.jpg,new\n"})
    curate.grow(more, tmp_path / "pool", options=options)
    assert Pool.open(tmp_path / "pool").state()["classes"] == ["common", "", "new"]


@pytest.mark.parametrize("named", [{"keys": ["b.jpg"]}, {"url_domains": ["bad.example"]}])
def test_copies_in_equal_bytes_go_too(named: dict[str, list[str]], tmp_path: Path) -> None:
    data = jpeg(picture(1)[0])
    files = {"a.jpg": data, "b.jpg": data, "c.jpg": jpeg(picture(2)[0])}
    table = "file_name,url\na.jpg,https://good.example/a\nb.jpg,https://bad.example/b\nc.jpg,https://good.example/c\n"
    source = write_folder(tmp_path / "s", files | {"metadata.csv": table.encode()})
    curate.grow(source, tmp_path / "pool", options=SMALL)
    assert curate.forget(tmp_path / "pool", **named, refill=True).forgotten == 2
    assert Pool.open(tmp_path / "pool").frame(["key"])["key"].to_list() == ["c.jpg"]


def test_what_names_nothing_is_a_named_error(pool: Path) -> None:
    with pytest.raises(UsageError, match="nothing to forget"):
        curate.forget(pool)
    with pytest.raises(KeyNotFoundError):
        curate.forget(pool, keys=["nobody.jpg"])
    with pytest.raises(UsageError, match="nothing was forgotten"):
        curate.forget(pool, url_domains=["unheard.example"])
    with pytest.raises(UsageError, match="no SHA-256"):
        curate.forget(pool, sha256=["abc"])
    with pytest.raises(UsageError, match="empty url domain"):
        curate.forget(pool, url_domains=["."])
    assert Pool.open(pool).rows == 21


@pytest.mark.parametrize("name", ["data/.tmpAbCdEf", "data/0101.lance", "_transactions/.tmpAbCdEf", "_versions/.tmpAb"])
def test_what_a_killed_run_left_behind_goes_too(name: str, pool: Path) -> None:
    (pool / "samples.lance" / name).write_bytes(MARKER.encode())
    curate.forget(pool, keys=["05.jpg"])
    assert places(pool, MARKER) == []


def test_a_pool_may_lose_every_row(pool: Path, marked: Path) -> None:
    keys = Pool.open(pool).frame(["uid"])["uid"].to_list()
    assert curate.forget(pool, keys=keys).forgotten == 21
    assert Pool.open(pool).rows == 0
    assert curate.grow(write_folder(pool.parent / "t", {"9.jpg": jpeg(picture(60)[0])}), pool).admitted == 1
