"""Invariants of the source tree, most of them absences."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import reference

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels" / "curate_kernels"
HEAVY = ("torch", "faiss", "polars", "numba", "lance", "open_clip", "onnxruntime")


def python(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("folder", ["kernels", "selectors"])
def test_source_roots_are_not_packages(folder: str) -> None:
    """`selectors` is a module of the standard library; a package of this name beside a script would hide it."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_standard_library_is_not_hidden_from_scripts_in_the_repository() -> None:
    where = python("import subprocess, selectors; print(selectors.__file__)")
    assert ROOT not in Path(where).parents


def imported(source: str) -> set[str]:
    """Top-level names that a source file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_are_seen_in_every_form() -> None:
    assert imported("import numba\ndef f():\n    from numba.core import types\n    import os.path") == {"numba", "os"}


def test_only_one_file_imports_numba() -> None:
    files = [f for top in ("curate", "kernels", "selectors") for f in (ROOT / top).rglob("*.py")]
    assert [f for f in files if "numba" in imported(f.read_text(encoding="utf-8"))] == [KERNELS / "_jit.py"]


def public_kernels(source: str) -> dict[str, list[str]]:
    """Name and arguments of every function decorated with @kernel whose name has no leading underscore."""
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "kernel" for mark in node.decorator_list)
        and not node.name.startswith("_")
    }


def without_twin(source: str) -> list[str]:
    """Public kernels of a source file that have no twin with the same arguments in tests/reference.py."""
    twins = {name: list(inspect.signature(f).parameters) for name, f in inspect.getmembers(reference, callable)}
    return [name for name, arguments in public_kernels(source).items() if twins.get(name) != arguments]


def test_every_public_kernel_has_a_twin() -> None:
    sources = [file.read_text(encoding="utf-8") for file in KERNELS.glob("*.py")]
    assert sum(len(public_kernels(source)) for source in sources) >= 6
    assert [name for source in sources for name in without_twin(source)] == []


def test_missing_twin_is_found() -> None:
    source = "@kernel\ndef {}: ...\n" * 3 + "def plain(x): ...\n"
    assert without_twin(source.format("push_topk(sim)", "new(x)", "_inner(x)")) == ["push_topk", "new"]


@pytest.mark.parametrize(
    "module", ["curate", "curate.sources", "curate.encoders", "curate.loaders", "curate_selectors.registry"]
)
def test_import_is_light(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code, tmp_path) == "[]"
