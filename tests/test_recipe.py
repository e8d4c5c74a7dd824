"""A recipe is read whole or refused with the key and the line."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.recipe import Recipe, load_recipe, recipe_from_dict
from curate.recipe_reference import recipe_reference

ROOT = Path(__file__).parents[1]
ALL_KEYS = [(table, key, value) for table, keys in Recipe().as_dict().items() for key, value in keys.items()]
KEYS = [(table, key, value) for table, key, value in ALL_KEYS if not isinstance(value, (dict, list))]


def load(folder: Path, text: str) -> Recipe:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file)


def test_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Recipe()


def test_keys_are_read_in_every_form_of_toml(tmp_path: Path) -> None:
    text = '[clean]\nmin_side = 64\n"captions" = false\n[gain]\nk = 8\n'
    expected = Recipe().replace({"clean": {"min_side": 64, "captions": False}, "gain": {"k": 8}})
    assert load(tmp_path, text) == expected
    assert load(tmp_path, "clean = {min_side = 64, captions = false}\ngain.k = 8\n") == expected


def test_whole_numbers_are_accepted_as_floats(tmp_path: Path) -> None:
    aspect = load(tmp_path, "[clean]\nmax_aspect = 4\n").clean.max_aspect
    assert (aspect, type(aspect)) == (4.0, float)


BAD = [
    ("\n[clean]\nmin_sides = 3", 3, "unknown key clean.min_sides"),
    ("\n[clean]\nmin-side = 3", 3, "unknown key clean.min-side"),
    ("[cleaning]\nmin_side = 3", 1, "unknown table [cleaning]"),
    ("# a note\n[data-set]\nx = 3", 2, "unknown table [data-set]"),
    ("clean = 3", 1, "clean must be a table"),
    ("[clean]\nlabels = true\n\nmin_side = 0", 4, "clean.min_side is 0; it must be at least 1"),
    ("clean.min_side = 0", 1, "clean.min_side is 0"),
    ("\nclean = {min_side = 0}", 2, "clean.min_side is 0"),
    ('[clean]\n"min_side" = 0', 2, "clean.min_side is 0"),
    ('["clean"]\nmin_side = 0', 2, "clean.min_side is 0"),
    ("[ clean ] # sizes\n  min_side = 0", 2, "clean.min_side is 0"),
    ("[[clean]]\nmin_side = 5", 1, "clean must be a table"),
    ("[clean.sizes]\nmin_side = 5", 1, "unknown key clean.sizes"),
    ("[gain]\nk = 257", 2, "gain.k is 257; it must be at least 1 and at most 256"),
    ('[gain]\nk = "4"', 2, "gain.k is '4'; it must be of type int"),
    ("[gain]\nk = 4.0", 2, "gain.k is 4.0; it must be of type int"),
    ("[clean]\nmin_side = true", 2, "clean.min_side is True; it must be of type int"),
    ("[clean]\ncaptions = 1", 2, "clean.captions is 1; it must be of type bool"),
    ('[dedup]\nepsilon = 0.1\nmatch = "text"', 3, "dedup.match is 'text'; it must be 'pair' or 'image'"),
    ("[dedup]\nepsilon = nan", 2, "dedup.epsilon is nan"),
    ("[clean]\nmax_aspect = inf", 2, "clean.max_aspect is inf"),
    ("[clean]\nmax_aspect = " + "9" * 400, 2, "clean.max_aspect is 999"),
    ("[score]\nmin_side = 3\n[clean]\nmin_side = 3", 2, "unknown key score.min_side"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD)
def test_error_names_the_key_and_the_line(text: str, line: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert f"recipe.toml, line {line}:" in str(caught.value)


@pytest.mark.parametrize(("table", "key", "value"), KEYS)
def test_wrong_type_of_any_key_is_named_with_its_line(table: str, key: str, value: object, tmp_path: Path) -> None:
    kind = "finite number" if isinstance(value, float) else type(value).__name__
    message = rf"line 3: {table}\.{key} is \[\]; it must be of type {kind}"
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, f"\n[{table}]\n{key} = []\n")


def bounds() -> list[tuple[str, str, float, int]]:
    """Every bound of every key, with the step that leads out of it."""
    found = []
    for table in dataclasses.fields(Recipe):
        for f in dataclasses.fields(table.default_factory):
            for bound, step in ((f.metadata["low"], -1), (f.metadata["high"], 1)):
                if bound is not None:
                    found.append((table.name, f.name, type(f.default)(bound), step))
    return found


@pytest.mark.parametrize(("table", "key", "bound", "step"), bounds())
def test_bound_is_accepted_and_what_lies_beyond_is_refused(table: str, key: str, bound: float, step: int) -> None:
    assert recipe_from_dict({table: {key: bound}}).as_dict()[table][key] == bound
    with pytest.raises(RecipeError, match=rf"{table}\.{key} is {bound + step}; it must be at least"):
        recipe_from_dict({table: {key: bound + step}})


def test_syntax_error_keeps_the_line_of_the_parser(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is not TOML: .*line 2"):
        load(tmp_path, "[clean]\nmin_side = = 3\n")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.toml cannot be read"):
        load_recipe(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(RecipeError, match=r"latin\.toml cannot be read"):
        load_recipe(tmp_path / "latin.toml")


def test_tables_come_back_from_a_dict() -> None:
    recipe = Recipe().replace({"clean": {"warmup": 200}, "select": {"method": "kcenter"}})
    assert recipe_from_dict(recipe.as_dict()) == recipe
    assert recipe != Recipe()


def test_reading_a_dict_leaves_it_as_it_was() -> None:
    tables = {"clean": {"min_contrast": 8}}
    recipe_from_dict(tables)
    assert type(tables["clean"]["min_contrast"]) is int


def changed(value: object) -> object:
    """Another value of the same type that lies in the bounds of every key but dedup.match."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value + 0.01 if isinstance(value, float) else value + "x"


def with_change(table: str, key: str, value: object) -> Recipe:
    special = {"decode": "full", "match": "image", "group_rule": "at-most:2", "max_kept": 1024}
    return Recipe().replace({table: {key: special.get(key, changed(value))}})


@pytest.mark.parametrize(("table", "key", "value"), KEYS)
def test_digest_sees_every_key_that_decides(table: str, key: str, value: object) -> None:
    other = with_change(table, key, value)
    per_run = ("workers", "patches", "device", "precision", "compile", "cache")
    decides = table not in ("source", "select") and key not in per_run
    assert (other.digest() != Recipe().digest()) == decides
    assert [line.partition(":")[0] for line in Recipe().differences(other)] == [f"{table}.{key}"] * decides


@pytest.mark.parametrize(
    "changes", [{"clean": {"min_sides": 3}}, {"cleaning": {}}, {"clean": {"min_side": 0}}, {"clean": 3}]
)
def test_change_that_does_not_fit_is_refused(changes: dict[str, dict[str, object]]) -> None:
    with pytest.raises(RecipeError):
        Recipe().replace(changes)


def test_reference_on_disk_is_the_generated_one() -> None:
    """Made by `python -m curate.recipe_reference > docs/recipe.md`."""
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == recipe_reference()


def test_reference_names_every_key_with_a_meaning() -> None:
    text = recipe_reference()
    for table, key, value in KEYS:
        assert f"## [{table}]" in text
        assert f"| `{key}` | {type(value).__name__} |" in text
    assert "|  |" not in text


TABLE = st.sampled_from([*Recipe().as_dict(), "x", "a-b", '"a b"'])
KEY = st.sampled_from([*sorted({key for _, key, _ in KEYS}), "x", "min-side", '"a b"', "a.b"])
VALUE = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(["true", "[]", "{}", '"pair"', '"x"', "1979-05-27", "{a = 1}", "9e999", "[[1]]"]),
)
LINE = st.one_of(
    TABLE.map("[{}]".format),
    TABLE.map("[[{}]]".format),
    st.tuples(KEY, VALUE).map(" = ".join),
    st.tuples(TABLE, KEY, VALUE).map(lambda t: f"{t[0]}.{t[1]} = {t[2]}"),
    st.text(max_size=12),
)


@given(st.lists(LINE, max_size=6).map("\n".join))
def test_any_text_is_a_recipe_or_a_recipe_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(encoded)
    try:
        recipe = load_recipe(file)
    except RecipeError:
        return
    assert len(recipe.digest()) == 64
    assert recipe_from_dict(tomllib.loads(file.read_text(encoding="utf-8"))) == recipe
