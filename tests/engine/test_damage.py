"""A file of a pool that is damaged or missing is told by name, with a way out that works."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import captioned_tar, jpeg, picture, write_folder
from toys import toy_encoders

import curate
from curate.engine.describe import describe
from curate.errors import CurateError, PoolError, PoolLockedError, UsageError
from curate.pool import Pool, Writer
from curate.pool.takedown import BAR, PENDING

OPTIONS = {"limits": {"batch_size": 24}, "clean": {"warmup": 64, "checkpoint_growth": 1.2}}
DECIDED = ["uid", "row", "decision", "reason", "duplicate_of", "pvi", "gain"]


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    with toy_encoders():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with all that a pool can hold: sums, an evaluation set, a takedown with its receipt, a tag."""
    base = tmp_path_factory.mktemp("damage")
    captioned_tar(base / "one.tar", range(72))
    write_folder(base / "two", {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(80, 90)})
    write_folder(base / "three", {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(90, 94)})
    write_folder(base / "test", {"0.jpg": jpeg(picture(85)[0])})
    curate.grow(base / "one.tar", base / "pool", options=OPTIONS)
    curate.forget(base / "pool", keys=["00003"])
    curate.tag(base / "pool", "early")
    curate.grow(base / "two", base / "pool", guard=[base / "test"])
    return base


@pytest.fixture
def pool(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base / "pool", tmp_path / "pool")
    return tmp_path / "pool"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def other_json(path: Path) -> None:
    path.write_bytes(b'{"salt": [1], "value": null}')


def empty(path: Path) -> None:
    path.write_bytes(b"")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path], None]] = [truncate, scramble, other_json, empty, Path.unlink, to_folder]


def decided(pool: Path) -> Any:
    return Pool.open(pool).frame(DECIDED)


def state_file(pool: Path, kind: str) -> Path:
    """Return the newest state, the sums or the evaluation set that it names."""
    opened = Pool.open(pool)
    state = opened.state()
    named = {
        "state": f"{opened.state_name()}.json",
        "sums": f"{state['checkpoint']['sums']['pairs']}.safetensors",
        "guard": f"{state['guards'][0]}.safetensors",
    }
    return pool / "state" / named[kind]


@pytest.mark.parametrize(
    ("kind", "damage"), [*(("state", damage) for damage in DAMAGES[:5]), ("sums", Path.unlink), ("guard", truncate)]
)
def test_a_damaged_state_names_the_version_to_go_back_to(
    kind: str, damage: Callable[[Path], None], base: Path, pool: Path
) -> None:
    path = state_file(pool, kind)
    damage(path)
    with pytest.raises(PoolError, match=re.escape(str(path))) as caught:
        curate.grow(base / "three", pool)
    way = re.search(r"`curate rollback (\S+) (\d+)`", str(caught.value))
    assert way
    assert way[1] == str(pool)
    curate.rollback(way[1], way[2])
    curate.grow(base / "two", pool, guard=[base / "test"])
    assert decided(pool).equals(decided(base / "pool"))


def test_a_version_whose_sums_are_lost_is_not_gone_back_to(pool: Path) -> None:
    newest = Pool.open(pool).version
    curate.rollback(pool, "early")
    truncate(pool / "state" / f"{Pool.open(pool, newest).state()['checkpoint']['sums']['pairs']}.safetensors")
    before = Pool.open(pool).version
    with pytest.raises(PoolError, match="damaged"):
        curate.rollback(pool, newest)
    assert Pool.open(pool).version == before


@pytest.mark.parametrize("damage", [truncate, scramble])
def test_a_damaged_manifest_of_the_table_can_be_moved_away(
    damage: Callable[[Path], None], base: Path, pool: Path
) -> None:
    path = min((pool / "samples.lance" / "_versions").glob("*.manifest"))
    damage(path)
    with pytest.raises(PoolError, match="damaged") as caught:
        Pool.open(pool)
    assert f"move {path} away" in str(caught.value)
    path.unlink()
    curate.grow(base / "two", pool, guard=[base / "test"])
    assert decided(pool).equals(decided(base / "pool"))


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_damaged_rows_are_a_named_error_and_older_ones_can_be_had(
    damage: Callable[[Path], None], base: Path, pool: Path
) -> None:
    now, early = (
        {f.path for fragment in opened.dataset.get_fragments() for f in fragment.data_files()}
        for opened in (Pool.open(pool), Pool.open(pool, _version(pool, "early")))
    )
    path = pool / "samples.lance" / "data" / min(now - early)
    damage(path)
    for use in (lambda: curate.grow(base / "three", pool), lambda: Pool.open(pool).frame(), lambda: describe(pool)):
        with pytest.raises(PoolError, match="damaged"):
            use()
    curate.rollback(pool, "early")
    curate.grow(base / "two", pool, guard=[base / "test"])
    assert decided(pool).equals(decided(base / "pool"))


def _version(pool: Path, tag: str) -> int:
    return Pool.open(pool).tags()[tag]


@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: path.write_bytes(path.read_bytes().replace(b"a", b"b"))])
def test_a_damaged_bar_lets_nothing_in(damage: Callable[[Path], None], base: Path, pool: Path) -> None:
    damage(pool / BAR)
    with pytest.raises(PoolError, match=r"bar\.json"):
        curate.grow(base / "three", pool)
    assert describe(pool)["rows"] == 81


@pytest.mark.parametrize("damage", [truncate, other_json])
def test_a_damaged_note_of_a_takedown_can_be_moved_away(
    damage: Callable[[Path], None], base: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "purge", killed)
        with pytest.raises(KeyboardInterrupt):
            curate.forget(pool, keys=["00005"])
    damage(pool / PENDING)
    with pytest.raises(PoolError, match=r"pending\.json, is damaged.* again"):
        curate.grow(base / "three", pool)
    (pool / PENDING).unlink()
    curate.forget(pool, keys=["00005"])
    curate.forget(base_copy := shutil.copytree(base / "pool", pool.parent / "straight"), keys=["00005"])
    assert decided(pool).equals(decided(base_copy))
    again = shutil.copy(base / "one.tar", pool.parent / "again.tar")
    assert curate.grow(again, pool).refused["forgotten"] == 2


@pytest.mark.parametrize("damage", DAMAGES[:4])
def test_a_damaged_receipt_is_told_by_the_log(damage: Callable[[Path], None], pool: Path) -> None:
    (path,) = (pool / "receipts").iterdir()
    damage(path)
    with pytest.raises(PoolError, match=re.escape(str(path))):
        curate.log(pool)


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", "null", '{"pid": 1'])
def test_who_holds_a_pool_may_be_unreadable(text: str, pool: Path) -> None:
    with Writer(pool):
        (pool / "writer.json").write_text(text)
        with pytest.raises(PoolLockedError, match="another process"):
            curate.tag(pool, "late")


@pytest.mark.parametrize("name", ["state", "samples.lance", "write.lock", "forgotten", "receipts"])
def test_something_else_in_a_place_of_the_pool_is_a_named_error(name: str, base: Path, pool: Path) -> None:
    path = pool / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"a file")
    else:
        to_folder(path)
    with pytest.raises(PoolError):
        curate.forget(pool, keys=["00005"])


def test_a_pool_where_a_file_lies_is_a_named_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PoolError):
            curate.grow(base / "three", path)
    assert (tmp_path / "file").read_bytes() == b"a file"


def test_a_filter_that_makes_no_sense_is_no_damage(base: Path) -> None:
    for where in ("decision = ", "nobody = 3", "row = 'x'"):
        with pytest.raises(UsageError, match="filter"):
            Pool.open(base / "pool").frame(["uid"], where=where)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_of_any_file_gives_anything_but_a_named_error(
    data: st.DataObject, base: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "fuzzed"
    shutil.rmtree(pool, ignore_errors=True)
    shutil.copytree(base / "pool", pool)
    path = data.draw(st.sampled_from(sorted(p for p in pool.rglob("*") if p.is_file())))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut] + data.draw(st.binary(max_size=20)) + content[cut + data.draw(st.integers(0, 20)) :])
    uses: list[Callable[[], object]] = [
        lambda: describe(pool), lambda: curate.log(pool), lambda: curate.why(pool, "00010"),
        lambda: curate.grow(base / "three", pool), lambda: curate.rollback(pool, "early"),
    ]  # fmt: skip
    for use in uses:
        try:
            use()
        except CurateError as error:
            assert str(error)  # noqa: PT017  any error that is not named ends the test
