"""The command line as a user or a script meets it: stdout is data, stderr talk, exit codes mean what README says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import captioned_tar, jpeg, picture, write_folder
from typer.main import get_command

from curate.cli import commands
from curate.pool import Writer
from curate.recipe import Recipe

ROOT = Path(__file__).parent.parent


def curate(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "curate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or ROOT, check=False)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    base = tmp_path_factory.mktemp("cli")
    files = {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(20)} | {"broken.jpg": b"no picture"}
    source = write_folder(base / "s", files)
    done = curate("grow", source, "--pool", base / "pool", "--batch-size", 8, "--json")
    assert done.returncode == 0, done.stderr
    return base, json.loads(done.stdout)


def test_grow_prints_one_json_object(grown: tuple[Path, dict[str, object]]) -> None:
    base, answer = grown
    assert set(answer) == {
        "pool", "version", "seen", "admitted", "known", "refused", "total", "seconds", "samples_per_second"
    }  # fmt: skip
    assert answer["pool"] == str(base / "pool")
    assert answer["seen"] == 21
    assert answer["refused"]["undecodable"] == 1  # type: ignore[index]
    assert answer["total"]["rows"] == 21  # type: ignore[index]


def test_select_writes_a_manifest_and_says_so(grown: tuple[Path, dict[str, object]]) -> None:
    base, _ = grown
    done = curate("select", base / "pool", "--method", "kcenter", "--budget", "5", "--out", base / "m", "--json")
    answer = json.loads(done.stdout)
    assert set(answer) == {"manifest", "method", "selected", "candidates", "bytes", "nested", "seconds"}
    assert (answer["method"], answer["selected"]) == ("kcenter", 5)
    assert Path(answer["manifest"]).is_file()
    info = json.loads(curate("info", base / "m", "--json").stdout)
    assert (info["kind"], info["rows"]) == ("manifest", 5)


def test_info_describes_a_pool(grown: tuple[Path, dict[str, object]]) -> None:
    info = json.loads(curate("info", grown[0] / "pool", "--json").stdout)
    assert {"kind", "version", "rows", "admitted", "refused", "encoders", "columns"} <= set(info)
    assert (info["kind"], info["rows"], info["encoders"]["image"]["name"]) == ("pool", 21, "builtin")


def test_why_explains_a_refusal(grown: tuple[Path, dict[str, object]]) -> None:
    answer = json.loads(curate("why", grown[0] / "pool", "broken.jpg", "--json").stdout)
    assert (answer["decision"], answer["reason"]) == ("refuse", "undecodable")
    assert answer["detail"]


def test_methods_lists_every_selector() -> None:
    rows = json.loads(curate("methods", "--json").stdout)
    names = [row["name"] for row in rows]
    assert names == sorted(names)
    assert {"infogrowth", "infogrowth-reference", "kcenter", "random", "default"} <= set(names)
    assert all(set(row) == {"name", "kind", "nested", "paper", "needs", "summary"} for row in rows)


@pytest.mark.parametrize("command", [["info"], ["why", "00.jpg"], ["methods"]])
def test_tables_are_printed_without_json(grown: tuple[Path, dict[str, object]], command: list[str]) -> None:
    arguments = [command[0], *([grown[0] / "pool"] if command[0] != "methods" else []), *command[1:]]
    done = curate(*arguments)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["grow"], 2, "Missing argument"),
        (["grow", "x", "--pool", "p", "--nonsense"], 2, "No such option"),
        (["grow", "nowhere", "--pool", "p"], 3, "nowhere"),
        (["grow", "nowhere", "--pool", "p", "--encoder", "magic"], 3, "nowhere"),
        (["grow", "nowhere", "--pool", "p", "--recipe", "no.toml"], 2, "no.toml"),
        (["select", "nowhere", "--out", "m"], 3, "no pool"),
        (["info", "nowhere"], 3, "neither"),
    ],
)
def test_errors_have_their_exit_code_and_one_line(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = curate(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_errors_on_a_pool_have_their_exit_code(grown: tuple[Path, dict[str, object]]) -> None:
    base, _ = grown
    pool = base / "pool"
    assert curate("select", pool, "--out", base / "x", "--method", "magic").returncode == 2
    assert curate("select", pool, "--out", base / "x", "--budget", "500%").returncode == 2
    assert curate("why", pool, "no such key").returncode == 3
    assert curate("grow", base / "s", "--pool", pool, "--encoder", "open_clip:RN50/openai").returncode == 4
    with Writer(pool):
        locked = curate("grow", base / "s", "--pool", pool)
    assert locked.returncode == 4
    assert "is being written by process" in locked.stderr


def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    write_folder(tmp_path / "s", {"a.jpg": jpeg(picture(0)[0]), "metadata.csv": b"file_name,kind\na.jpg,x\n"})
    done = curate("grow", tmp_path / "s", "--pool", tmp_path / "pool", "--label", "species")
    assert done.returncode == 3
    assert "species" in done.stderr
    assert "kind" in done.stderr


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    captioned_tar(tmp_path / "s" / "0.tar", range(300))
    command = [sys.executable, "-m", "curate", "grow", str(tmp_path / "s"), "--pool", str(tmp_path / "p")]
    process = subprocess.Popen([*command, "--batch-size", "16"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    versions = tmp_path / "p" / "samples.lance" / "_versions"
    while process.poll() is None and not (versions.is_dir() and len(list(versions.iterdir())) > 3):
        time.sleep(0.01)  # a busy machine takes a minute to start it
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate()
    assert process.returncode == 5
    assert "the same command resumes" in talk
    rest = json.loads(curate("grow", tmp_path / "s", "--pool", tmp_path / "p", "--json").stdout)
    assert rest["total"]["rows"] == 300
    assert 16 <= rest["known"] < 300


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['curate', '--help']\n"
        "from curate.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'polars', 'numba', 'numpy', 'lance', 'faiss', 'open_clip', 'onnxruntime', 'scipy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "HEAVY []" in done.stdout
    for command in ("grow", "select", "why", "info", "methods", "demo"):
        assert command in done.stdout


def test_every_command_and_option_has_help_text() -> None:
    from curate.cli import app

    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        assert all(p.help or p.name == "help" for p in command.params if hasattr(p, "help")), name


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "s", {"\x1b[31mred\u202e.jpg": jpeg(picture(0)[0])})
    assert curate("grow", source, "--pool", tmp_path / "p", "--json").returncode == 0
    key = json.loads(curate("select", tmp_path / "p", "--out", tmp_path / "m", "--budget", "1", "--json").stdout)
    shown = curate("why", tmp_path / "p", "\x1b[31mred\u202e.jpg")
    assert key["selected"] == 1
    assert shown.returncode == 0
    assert "\x1b[31m" not in shown.stdout
    assert "\u202e" not in shown.stdout


def test_sources_are_listed_and_overridden(tmp_path: Path) -> None:
    done = curate("sources", "--json")
    rows = json.loads(done.stdout)
    assert {"tar", "folder", "table", "hf", "coco", "mds", "litdata", "lance"} <= {row["name"] for row in rows}
    assert all(set(row) == {"name", "summary", "told_by"} and all(row.values()) for row in rows)
    (tmp_path / "t.csv").write_text("path\n")
    refused = curate("grow", tmp_path / "t.csv", "--pool", tmp_path / "pool", "--source", "coco")
    assert (refused.returncode, (tmp_path / "pool").exists()) == (3, False)
    assert "t.csv is not of the kind 'coco': it is no JSON file of COCO's form" in refused.stderr
    unknown = curate("grow", tmp_path / "t.csv", "--pool", tmp_path / "pool", "--source", "zip")
    assert unknown.returncode == 2
    assert "no kind of source 'zip'" in unknown.stderr


def test_every_option_of_grow_reaches_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReachedError(Exception):
        pass

    def run(*_: object, options: dict[str, dict[str, object]], **__: object) -> None:
        raise ReachedError(options)

    monkeypatch.setattr("curate.engine.grow.grow", run)
    columns = {name: f"my {name}" for name in ("path", "label", "caption", "alternatives", "group", "images")}
    with pytest.raises(ReachedError) as reached:
        commands.grow(
            ["x"], pool="p", source="coco", encoder="builtin", text_encoder="st:m", batch_size=7, every=10.0, **columns
        )
    (options,) = reached.value.args
    assert options == {
        "source": {"kind": "coco", **columns},
        "encode": {"image": "builtin", "text": "st:m"},
        "limits": {"batch_size": 7},
    }
    assert {key for table in options.values() for key in table} <= {
        key for table in Recipe().as_dict().values() for key in table
    }
