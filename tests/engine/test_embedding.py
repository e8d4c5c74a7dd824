"""What is embedded and how often: further encoders, patch tokens, bytes that are known, caches, kills."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from toys import ToyImage, ToyText

import curate
from curate.encoders.store import Numbers, RowStore, first_bits
from curate.engine import binding, embedding, grow
from curate.errors import EncoderError, PoolMismatchError, RecipeError, UsageError
from curate.pool import PATCHES, Writer
from curate.recipe import Recipe

OPTIONS = {"limits": {"batch_size": 16}, "clean": {"warmup": 64, "checkpoint_growth": 1.3}}
DECIDED = ["uid", "row", "batch", "decision", "reason", "duplicate_of", "history", "counted", "pvi", "gain"]


class Crash(BaseException):
    """Stands for a process that stops at once."""


class Counting(ToyImage):
    """Counts how often it encodes which prepared image; "dino": another shape, other rows, and patch tokens."""

    seen: ClassVar[Counter[tuple[str, bytes]]] = Counter()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.side = name, 4 if name == "dino" else 6
        self.fingerprint = name.encode().hex().ljust(32, "0")
        if name == "dino":
            self.patch_shape = (4, 3)

    def prepare(self, pixels: Any) -> Any:
        return super().prepare(pixels)[: self.side, : self.side].copy()

    def encode(self, prepared: Sequence[Any]) -> Any:
        Counting.seen.update((self.name, p.tobytes()) for p in prepared)
        assert all(p.shape == (self.side, self.side, 3) for p in prepared)
        full = [np.resize(p, (6, 6, 3)) for p in prepared]
        return super().encode(full)

    def patches(self, prepared: Sequence[Any]) -> Any:
        Counting.seen.update((f"{self.name} patches", p.tobytes()) for p in prepared)
        return np.array([p[::2, ::2].reshape(4, 3) for p in prepared], np.float32).reshape(-1, 4, 3) * 300


@pytest.fixture(autouse=True)
def encoders() -> Iterator[None]:
    Counting.seen = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for place in (grow, embedding):
            patch.setattr(place, "load_image_encoder", lambda name, *_: Counting(name))
        patch.setattr("curate.engine.embed.load_image_encoder", lambda name, *_: Counting(name))
        patch.setattr(binding, "load_text_encoder", lambda name, *_: ToyText())
        yield


def counts(name: str = "builtin") -> set[int]:
    return {n for (encoder, _), n in Counting.seen.items() if encoder == name}


def images(name: str = "builtin") -> int:
    return sum(encoder == name for encoder, _ in Counting.seen)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding") / "s"
    captioned_tar(folder / "0.tar", range(0, 80, 2), frozenset(range(0, 40, 10)))
    captioned_tar(folder / "1.tar", range(1, 80, 2), frozenset(range(1, 41, 10)))
    return folder


@pytest.fixture(scope="module")
def plain(source: Path) -> pl.DataFrame:
    """Return the rows of a pool that was grown by an engine without an embedder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grow, "load_image_encoder", lambda name, *_: Counting(name))
        patch.setattr(binding, "load_text_encoder", lambda name, *_: ToyText())
        patch.setattr(embedding, "attach", lambda engine, *_: engine)
        curate.grow(source, source.parent / "plain", options=OPTIONS)
    return curate.Pool.open(source.parent / "plain").frame([*DECIDED, "image", "text"])


def rows_of(pool: Path, *columns: str) -> pl.DataFrame:
    return curate.Pool.open(pool).frame([*DECIDED, "image", "text", *columns])


def crashing(patch: pytest.MonkeyPatch, target: Any, name: str, call: int, after: bool = False) -> None:
    original, calls = getattr(target, name), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call and not after:
            raise Crash
        result = original(*args, **kwargs)
        if len(calls) == call:
            raise Crash
        return result

    patch.setattr(target, name, wrapped)


# Never twice


def test_every_image_is_embedded_once_and_nothing_is_decided_otherwise(
    source: Path, plain: pl.DataFrame, tmp_path: Path
) -> None:
    curate.grow(source, tmp_path / "pool", options=OPTIONS)
    assert rows_of(tmp_path / "pool").equals(plain)
    assert (counts(), images()) == ({1}, 80)
    assert {path.stat().st_size for path in (tmp_path / "pool" / "embeddings").rglob("rows")} == {0}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("cached", [False, True], ids=["alone", "cache"])
def test_a_run_that_is_killed_and_resumed_embeds_each_image_once(
    source: Path, plain: pl.DataFrame, tmp_path: Path, call: int, after: bool, cached: bool
) -> None:
    options = OPTIONS | ({"encode": {"cache": str(tmp_path / "cache")}} if cached else {})
    with pytest.MonkeyPatch.context() as patch:
        crashing(patch, Writer, "append", call, after)
        with pytest.raises(Crash):
            curate.grow(source, tmp_path / "pool", options=options)
    curate.grow(source, tmp_path / "pool", options=options)
    assert rows_of(tmp_path / "pool").equals(plain)
    assert (counts(), images()) == ({1}, 80)


def test_the_same_bytes_under_other_names_are_embedded_once(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    curate.grow(source, pool, options=OPTIONS)
    before = Counting.seen.copy()
    again = captioned_tar(tmp_path / "again.tar", range(80))
    told = curate.grow([source, again], pool)
    assert (told.seen, told.known) == (160, 80)
    assert Counting.seen == before
    twice = write_folder(tmp_path / "new", {f"{i}.jpg": jpeg(picture(900 + i % 2)[0]) for i in range(6)})
    curate.grow(twice, pool)
    assert sum((Counting.seen - before).values()) == 2  # also within a batch
    frame = curate.Pool.open(pool).frame(["sha256", "image"])
    assert frame["sha256"].n_unique() == 82
    assert frame.group_by("sha256").agg(pl.col("image").n_unique())["image"].max() == 1


def test_a_shared_cache_serves_other_pools_and_is_no_part_of_the_recipe(
    source: Path, plain: pl.DataFrame, tmp_path: Path
) -> None:
    options = OPTIONS | {"encode": {"cache": str(tmp_path / "cache")}}
    curate.grow(source, tmp_path / "one", options=options)
    before = Counting.seen.copy()
    curate.grow(source, tmp_path / "two", options=options | {"dedup": {"epsilon": 0.002}})
    assert Counting.seen == before
    assert rows_of(tmp_path / "one").equals(plain)
    assert (
        rows_of(tmp_path / "two", "sha256")
        .select("sha256", "image")
        .equals(rows_of(tmp_path / "one", "sha256").select("sha256", "image"))
    )
    curate.grow(source, tmp_path / "one")  # without the cache: no other recipe
    assert Counting.seen == before


def test_damaged_entries_of_a_cache_are_computed_again(source: Path, plain: pl.DataFrame, tmp_path: Path) -> None:
    options = OPTIONS | {"encode": {"cache": str(tmp_path / "cache")}}
    curate.grow(source, tmp_path / "one", options=options)
    (rows,) = (tmp_path / "cache").rglob("rows")
    data = bytearray(rows.read_bytes())
    for i in range(0, len(data), 24 * 10):  # every tenth row
        data[i] ^= 255
    rows.write_bytes(data[: -24 * 3 - 5])  # and the end is gone
    before = Counting.seen.copy()
    curate.grow(source, tmp_path / "two", options=options)
    assert rows_of(tmp_path / "two").equals(plain)
    assert 0 < sum((Counting.seen - before).values()) < 80
    before = Counting.seen.copy()
    curate.grow(source, tmp_path / "three", options=options)
    assert Counting.seen == before  # they were written anew


def test_a_cache_that_cannot_be_made_is_a_named_error_and_one_that_fails_is_left(
    source: Path, plain: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EncoderError, match=r"encode\.cache .* cannot be made"):
        curate.grow(source, tmp_path / "pool", options={"encode": {"cache": str(tmp_path / "file" / "c")}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowStore, "add", full)
    curate.grow(source, tmp_path / "other", options=OPTIONS | {"encode": {"cache": str(tmp_path / "cache")}})
    assert rows_of(tmp_path / "other").equals(plain)
    assert caplog.text.count("not kept in") == 1


# The store


def keys(*numbers: int) -> list[str]:
    return [f"{n:016x}" * 4 for n in numbers]


def values(*numbers: int) -> Any:
    return np.array([[n, n + 1, n + 2] for n in numbers], np.float16)


def test_numbers_find_the_last_one_whatever_came_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.encoders.store._RECENT", 7)
    rng, truth, numbers = np.random.default_rng(0), {}, Numbers()
    for start in range(0, 200, 5):
        new = rng.integers(0, 60, rng.integers(0, 12))
        at = start + np.arange(new.size)
        numbers.add(first_bits(keys(*new)), at)
        truth |= dict(zip(new.tolist(), at.tolist(), strict=True))
        found = numbers.find(keys(*range(70)))
        assert found.tolist() == [truth.get(n, -1) for n in range(70)]


def test_rows_come_back_bit_for_bit_in_another_process(tmp_path: Path) -> None:
    store, other = RowStore(tmp_path, "a", 3), RowStore(tmp_path, "a", 3)
    assert other.find(keys(1)) == {}
    store.add(keys(1, 2), values(1, 2))
    store.add(keys(3), np.array([[np.nan, -0.0, 6e-8]], np.float16))
    found = other.find(keys(2, 4, 3))
    assert list(found) == keys(2, 3)
    assert found[keys(3)[0]].tobytes() == np.array([np.nan, -0.0, 6e-8], np.float16).tobytes()
    assert RowStore(tmp_path, "b", 3).find(keys(1)) == {}
    store.clear()
    assert other.find(keys(1, 2)) == {}


@pytest.mark.parametrize("cut", range(0, 41, 7))
def test_what_a_killed_writer_left_is_cut_off(tmp_path: Path, cut: int) -> None:
    store = RowStore(tmp_path, "a", 3)
    store.add(keys(1, 2), values(1, 2))
    names, rows = (tmp_path / "a" / name for name in ("keys", "rows"))
    with names.open("ab") as file:  # killed while it wrote the key
        file.write(b"k" * cut)
    with rows.open("ab") as file:
        file.write(b"r" * 6)
    again = RowStore(tmp_path, "a", 3)
    assert list(again.find(keys(1, 2))) == keys(1, 2)
    again.add(keys(5, 6), values(5, 6))
    for reader in (store, again, RowStore(tmp_path, "a", 3)):
        found = reader.find(keys(1, 2, 5, 6))
        np.testing.assert_array_equal(np.stack(list(found.values())), values(1, 2, 5, 6))


WRITES = """
import sys, numpy as np
from pathlib import Path
from curate.encoders.store import RowStore
store = RowStore(Path(sys.argv[1]), "a", 3)
for n in range(int(sys.argv[2]), 100000, 2):
    store.add([f"{n:016x}" * 4], np.array([[n % 900, 1, 2]], np.float16))
    if n == 201: print("going", flush=True)
    if n >= int(sys.argv[3]): break
"""


def test_two_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    doomed = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path), "1", "99999"], env=env, stdout=-1)
    other = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path), "0", "400"], env=env)
    assert doomed.stdout is not None
    doomed.stdout.readline()
    doomed.kill()
    doomed.communicate()
    assert other.wait() == 0
    store = RowStore(tmp_path, "a", 3)
    found = store.find(keys(*range(0, 401, 2), *range(1, 202, 2)))
    assert len(found) == 201 + 101
    assert all(row[0] == int(key[:16], 16) % 900 for key, row in found.items())


# Further encoders


MORE = {"encode": {"extra": {"dino": "dino"}}}


def expected(pool: Path, name: str) -> Any:
    """Return a column as it must be, computed from the stored bytes."""
    opened, encoder = curate.Pool.open(pool), Counting(name)
    state = opened.state()
    roots = {n: s["root"] for n, s in state["sources"].items()}
    from curate.stored import PLACE, stored_pixels

    shown = stored_pixels(opened.frame(PLACE).to_dicts(), roots, 10**8)
    return encoder.encode([encoder.prepare(pixels) for pixels in shown]).astype(np.float16).astype(np.float32)


def test_a_further_encoder_is_stored_beside_and_decides_nothing(
    source: Path, plain: pl.DataFrame, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    curate.grow(source, pool, options=OPTIONS | MORE)
    assert rows_of(pool).equals(plain)
    assert counts() == counts("dino") == {1}
    opened = curate.Pool.open(pool)
    np.testing.assert_array_equal(opened.embeddings("dino"), expected(pool, "dino"))
    assert opened.vectors == ["image", "dino", "text"]
    assert "dino" not in opened.frame().columns
    assert opened.state()["extra"]["dino"]["fingerprint"] == Counting("dino").fingerprint
    assert curate.replay(pool)["equal"]


def test_decoding_in_threads_for_the_sake_of_further_encoders_is_told(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    curate.grow(source / "0.tar", tmp_path / "plain", options=OPTIONS)
    assert "in threads" not in caplog.text
    curate.grow(source / "0.tar", tmp_path / "pool", options=OPTIONS | MORE)
    assert caplog.text.count("images are decoded in threads, as encode.extra asks for") == 1


@pytest.mark.parametrize("call", [1, 3])
def test_further_encoders_survive_a_kill(source: Path, tmp_path: Path, call: int) -> None:
    curate.grow(source, tmp_path / "straight", options=OPTIONS | MORE)
    for target, name in ((Writer, "append"), (Writer, "add_view")):
        pool = tmp_path / name
        with pytest.MonkeyPatch.context() as patch:
            crashing(patch, target, name, 1 if name == "add_view" else call)
            with pytest.raises(Crash):
                curate.grow(source, pool, options=OPTIONS | MORE)
        curate.grow(source, pool)
        assert rows_of(pool, "dino").equals(rows_of(tmp_path / "straight", "dino"))


def test_an_encoder_is_added_to_a_pool_resumed_and_kept_up(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    curate.grow(source / "0.tar", pool, options=OPTIONS)
    with pytest.raises(PoolMismatchError, match=r"curate embed .* --name dino --encoder dino"):
        curate.grow(source / "1.tar", pool, options=MORE)
    before = rows_of(pool)
    with pytest.MonkeyPatch.context() as patch:
        crashing(patch, curate.engine.embed, "fill", 2)
        with pytest.raises(Crash):
            curate.embed(pool, "dino", "dino")
    done = curate.embed(pool, "dino")
    assert counts("dino") == {1}
    assert (done.embedded, done.unread) == (40 - 16, 0)
    assert rows_of(pool).equals(before)
    np.testing.assert_array_equal(curate.Pool.open(pool).embeddings("dino"), expected(pool, "dino"))
    assert curate.embed(pool, "dino").embedded == 0
    curate.grow(source / "1.tar", pool)
    np.testing.assert_array_equal(curate.Pool.open(pool).embeddings("dino"), expected(pool, "dino"))
    assert [entry["what"] for entry in curate.log(pool)].count("embedded") == 3
    assert curate.replay(pool)["equal"]
    curate.forget(pool, keys=["00003"])
    opened = curate.Pool.open(pool)
    assert opened.rows == 79
    np.testing.assert_array_equal(opened.embeddings("dino"), expected(pool, "dino"))


def test_selections_and_scores_read_the_view_that_is_asked_for(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    curate.grow(source, pool, options=OPTIONS | MORE)
    opened = curate.Pool.open(pool)
    where = "decision = 'admit'"
    uids = opened.frame(["uid"], where=where)["uid"].to_numpy()
    order = np.argsort(uids)
    for view in ("image", "dino"):
        params = {} if view == "image" else {"view": view}
        curate.select_from_pool(pool, tmp_path / view, method="kcenter", budget=9, params=params)
        chosen = curate.select(opened.embeddings(view, where=where)[order], method="kcenter", budget=9).index
        assert curate.read_manifest(tmp_path / view)["uid"].to_list() == uids[order][chosen].tolist()
        curate.score_pool(pool, ["density-knn"], params=params)
    frame = curate.Pool.open(pool).frame()
    own = [name for name in frame.columns if name.endswith("_dino")]
    assert own
    assert all(name.removesuffix("_dino") in frame.columns for name in own)
    assert not frame[own[0]].equals(frame[own[0].removesuffix("_dino")])
    for unknown in (lambda: curate.score_pool(pool, ["density-knn"], params={"view": "nothing"}),
                    lambda: curate.select_from_pool(pool, tmp_path / "x", params={"view": "nothing"})):  # fmt: skip
        with pytest.raises(UsageError, match="there are: image, dino"):
            unknown()
    Recipe().replace({"select": {"method": "kcenter", "params": {"view": "dino"}}})  # as --set view=dino gives it
    assert "compute" not in (tmp_path / "dino" / "manifest.json").read_text()


def test_images_that_are_gone_stay_without_and_are_taken_in_later(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(8)})
    (folder / "9.jpg").write_bytes(b"no picture")
    curate.grow(folder, tmp_path / "pool")
    (folder / "3.jpg").rename(tmp_path / "away.jpg")
    done = curate.embed(tmp_path / "pool", "dino", "dino")
    assert (done.embedded, done.unread) == (7, 1)
    assert curate.Pool.open(tmp_path / "pool").embeddings("dino").any(axis=1).sum() == 7
    (tmp_path / "away.jpg").rename(folder / "3.jpg")
    done = curate.embed(tmp_path / "pool", "dino")
    assert (done.embedded, done.unread) == (1, 0)


def test_names_and_encoders_that_do_not_fit_are_named_errors(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    for name in ("image", "decision", "text"):
        with pytest.raises(UsageError, match="is a column of every pool"):
            curate.grow(source, pool, options={"encode": {"extra": {name: "dino"}}})
    for extra in ({"Dino": "dino"}, {"d-1": "dino"}, {"dino": 3}):
        with pytest.raises(RecipeError, match=r"encode\.extra"):
            curate.grow(source, pool, options={"encode": {"extra": extra}})
    assert not pool.exists() or not (pool / "samples.lance").exists()
    curate.grow(source / "0.tar", pool, options=OPTIONS | MORE)
    for name, encoder, error in (("x", "", UsageError), ("9", "dino", UsageError), ("uid", "dino", UsageError),
                                 ("dino", "other", PoolMismatchError)):  # fmt: skip
        with pytest.raises(error):
            curate.embed(pool, name, encoder)
    with pytest.raises(PoolMismatchError, match="other weights"):
        curate.grow(source / "1.tar", pool, options={"encode": {"extra": {"dino": "other"}}})


# Patch tokens


def test_patch_tokens_are_stored_on_request_only(
    source: Path, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OPTIONS | {"encode": {"image": "dino", "text": "builtin", "patches": True}}
    curate.grow(source / "0.tar", tmp_path / "pool", options=options)
    opened, encoder = curate.Pool.open(tmp_path / "pool"), Counting("dino")
    assert counts("dino patches") == {1}
    assert "patch tokens take" in caplog.text
    state = opened.state()
    assert state["patches"] == [4, 3]
    from curate.stored import PLACE, stored_pixels

    roots = {n: s["root"] for n, s in state["sources"].items()}
    shown = stored_pixels(opened.frame(PLACE).to_dicts(), roots, 10**8)
    want = encoder.patches([encoder.prepare(p) for p in shown]).clip(-65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(opened.embeddings(PATCHES).reshape(-1, 4, 3), want.astype(np.float32))
    curate.grow(source / "1.tar", tmp_path / "pool")  # a pool that has them goes on
    assert curate.Pool.open(tmp_path / "pool").embeddings(PATCHES).any(axis=1).all()
    monkeypatch.setattr(grow, "load_image_encoder", lambda *_: ToyImage())
    with pytest.raises(EncoderError, match="gives no patch tokens"):
        curate.grow(source, tmp_path / "other", options={"encode": {"patches": True}})


# What rows were computed with


def test_a_smaller_batch_is_written_down_and_a_resumed_run_goes_on_with_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Halving(Counting):
        compute = "cpu float32 32"

        def encode(self, prepared: Sequence[Any]) -> Any:
            if len(Counting.seen) > 20:
                self.compute = "cpu float32 16"
            return super().encode(prepared)

    monkeypatch.setattr(grow, "load_image_encoder", lambda name, given: asked.append(given.like) or Halving(name))
    curate.grow(source / "0.tar", tmp_path / "pool", options=OPTIONS)
    state = curate.Pool.open(tmp_path / "pool").state()
    assert state["image"]["compute"] == "cpu float32 16"
    (change,) = state["changes"]
    assert change["rows"] == 32
    assert change["changes"] == ["embeddings of images: computed as cpu float32 16, before as cpu float32 32"]
    curate.grow(source / "1.tar", tmp_path / "pool")
    assert [str(like) for like in asked] == ["None", "cpu float32 16"]
