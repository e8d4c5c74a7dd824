"""The document of all scores."""

from pathlib import Path

from curate.scores.registry import scores_reference
from curate.scores.table import SCORES

ROOT = Path(__file__).parents[2]


def test_the_reference_on_disk_is_the_generated_one() -> None:
    """Made by `python -m curate.scores.registry > docs/scores.md`."""
    assert (ROOT / "docs" / "scores.md").read_text(encoding="utf-8") == scores_reference()


def test_the_reference_names_every_score_and_column() -> None:
    text = scores_reference()
    for name, entry in SCORES.items():
        assert f"\n## {name}\n" in text
        for column, unit, higher in entry.columns:
            assert f"| `{column}` | {unit} | {higher} |" in text
