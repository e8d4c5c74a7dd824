"""Definitions: what is wrong is named, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.benchmark.definition import Definition, DefinitionError, Gate, definition_from, load_definition

FOLDER = Path(__file__).parents[2] / "benchmarks" / "definitions"
GOOD = """[bench]
budgets = [0.1, 0.5]
seeds = 2

[dataset.c]
kind = "synthetic"
rows = 100

[corruption]
clean = []
flipped = [{ kind = "label-flip", share = 0.2 }]

[selector]
random = { method = "random" }
gated = { method = "kcenter", gate = { column = "pvi_label", least = 0.0 } }
"""


def load(tmp_path: Path, text: str) -> Definition:
    path = tmp_path / "d.toml"
    path.write_text(text, encoding="utf-8")
    return load_definition(path)


def test_a_definition_is_read_with_its_defaults(tmp_path: Path) -> None:
    made = load(tmp_path, GOOD)
    assert made.bench.name == "d"
    assert made.bench.budgets == (0.1, 0.5)
    assert made.selector["gated"].gate == Gate(column="pvi_label", least=0.0)
    assert (len(made.seeds_of("random")), len(made.seeds_of("gated"))) == (5, 2)
    assert made.corruption["flipped"][0].share == 0.2


def test_without_corruptions_a_collection_is_taken_as_it_is(tmp_path: Path) -> None:
    for text in (GOOD.partition("[corruption]")[0] + "[corruption]\n", GOOD.partition("[corruption]")[0]):
        assert load(tmp_path, text + "[selector]\nrandom = { method = 'random' }\n").corruption == {"clean": ()}


def test_the_digest_is_of_the_values_not_of_the_text(tmp_path: Path) -> None:
    made = load(tmp_path, GOOD)
    assert load(tmp_path, "# a remark\n" + GOOD.replace("0.5]", "0.50]")).digest() == made.digest()
    assert load(tmp_path, GOOD.replace("share = 0.2", "share = 0.3")).digest() != made.digest()


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seeds = 2", "seed = 2", 3, "unknown key bench.seed"),
        ("seeds = 2", "seeds = 0", 3, "must be 1 at least"),
        ("seeds = 2", "seeds = 9", None, "baseline needs 9"),
        ("seeds = 2", "seeds = '2'", 3, "must be of type int"),
        ("seeds = 2", "seeds = true", 3, "must be of type int"),
        ("[0.1, 0.5]", "[0.1, 1.5]", 2, "shares above 0"),
        ("[0.1, 0.5]", "[0.1, 0.1]", 2, "twice"),
        ("[0.1, 0.5]", "0.1", 2, "must be a list"),
        ('"synthetic"', '"imagenet"', 6, "there are: synthetic"),
        ('"synthetic"', '"source"', None, "a source needs its path"),
        ("rows = 100", "row = 100", 7, "unknown key dataset.c.row"),
        ("rows = 100", "rows = 2", 7, "20 rows"),
        ("rows = 100", "flipped = 1.5", 7, "share below 1"),
        ('kind = "label-flip"', 'kind = "label-swap"', 11, "label-swap"),
        ("share = 0.2", "share = 2", 11, "below 1"),
        ("share = 0.2", "how = 'badly'", 11, "badly"),
        ('random = { method = "random" }', 'balanced = { method = "water-fill" }', None, "lacks the baseline"),
        ('"kcenter"', '"kcentre"', 15, "no method is called 'kcentre'"),
        ('"kcenter"', '"peer:nobody"', 15, "nobody"),
        ('"kcenter"', '"kcenter", params = { k = 3 }', 15, "no parameter k"),
        ("least = 0.0", "leased = 0.0", 15, "leased"),
        ("pvi_label", "pvi_lable", 15, "no score has such a column"),
        ("{ column", "'strict' #", 15, "must be 'oracle'"),
        ("[selector]", "[detection]\ncolumns = ['s9']\n[selector]", 14, "no score has such a column"),
        ("[selector]", "[selectors]", 13, "unknown table"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int | None, words: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if new.startswith("'strict'"):
        text = text.replace("'strict' #", "'strict' } #")
    with pytest.raises(DefinitionError, match=words) as caught:
        load(tmp_path, text)
    if line is not None:
        assert f"d.toml, line {line}:" in str(caught.value)


def test_a_file_that_is_no_toml_or_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"is not TOML"):
        load(tmp_path, "[bench")
    with pytest.raises(DefinitionError, match="cannot be read"):
        load_definition(tmp_path / "none.toml")


@pytest.mark.parametrize("tables", [{}, {"dataset": {"c": {"kind": "synthetic"}}}, {"dataset": 3}, {"bench": []}])
def test_a_table_that_is_missing_or_none_is_named(tables: dict[str, object]) -> None:
    with pytest.raises(DefinitionError, match=r"\[dataset\]|\[selector\]|\[bench\]"):
        definition_from(tables)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_definitions_are_sound(path: Path) -> None:
    made = load_definition(path)
    assert any(one.method == "everything" for one in made.selector.values())
