"""The package as it is shipped, and every way of starting it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import curate

ROOT = Path(__file__).parent.parent
SOURCES = {
    "curate": "curate",
    "kernels/curate_kernels": "curate_kernels",
    "selectors/curate_selectors": "curate_selectors",
}


def run(*command: str, cwd: Path = ROOT, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out))
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = run("git", "ls-files", *SOURCES).stdout.split()
    expected = set()
    for name in tracked:
        folder = next(folder for folder in SOURCES if name.startswith(folder + "/"))
        expected.add(SOURCES[folder] + name.removeprefix(folder))
    assert names == expected


def test_the_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = "import curate, curate_kernels, curate_selectors; print(curate.__file__, curate.__version__)"
    done = run(sys.executable, "-c", code, cwd=tmp_path, path=str(target))
    assert done.stdout.split() == [str(target / "curate" / "__init__.py"), curate.__version__]
    done = run(sys.executable, "-m", "curate", "methods", "--json", cwd=tmp_path, path=str(target))
    assert done.returncode == 0, done.stderr
    assert '"kcenter"' in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-c", "import subprocess, asyncio, socketserver, multiprocessing.connection"],
        [sys.executable, "-m", "curate", "--version"],
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_packaging.py"],
        [str(Path(sys.executable).parent / "pytest"), "--collect-only", "-q", "tests/test_packaging.py"],
        [str(Path(sys.executable).parent / "curate"), "--version"],
    ],
    ids=["import subprocess", "python -m curate", "python -m pytest", "pytest", "curate"],
)
def test_every_way_of_starting_works_from_the_root(command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_calls_what_the_readme_names() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_layers_hold() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout
