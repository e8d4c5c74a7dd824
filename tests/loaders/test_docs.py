"""The examples of docs/loaders.md run."""

import re
from pathlib import Path

import pytest
from subsets import tar_rows, write_rows

DOC = Path(__file__).parents[2] / "docs" / "loaders.md"


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = tar_rows(tmp_path / "shards", 48)
    two_phase = [row | {"epoch_odd": 0.5, "epoch_even": 0.5} for row in rows]
    examples = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 7
    names: dict[str, object] = {}
    for number, example in enumerate(examples):
        root = "/data/shards" if "roots=" in example else tmp_path / "shards"
        write_rows(tmp_path / "subset", rows, root)
        write_rows(tmp_path / "gains", two_phase, root)
        # Workers take time to start, and are tested elsewhere.
        code = example if number == 0 else example.replace("num_workers=2", "num_workers=0")
        exec(compile(code, str(DOC), "exec"), names)
