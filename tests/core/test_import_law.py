"""A room imports only rooms before it; there is no cycle; heavy libraries are never imported at module level outside their wrappers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "core",
    "client",
    "store",
    "engines",
    "assets",
    "checks",
    "serve",
    "work",
    "evaluate",
    "build",
    "govern",
    "loop",
    "workspace",
    "protocols",
    "web",
    "cli",
)
HEAVY = {
    "torch",
    "transformers",
    "lancedb",
    "ray",
    "sklearn",
    "onnxruntime",
    "duckdb",
    "skl2onnx",
    "onnx",
    "pandas",
    "pyarrow",
    "scipy",
    "skops",
    "pypdfium2",
    "bs4",
    "fastcdc",
    "genai_prices",
    "aiohttp",
    "mlflow",
    "openai",
    "anthropic",
    "obstore",
    "polars",
    "xgboost",
    "lightgbm",
    "safetensors",
    "matplotlib",
}
TEMPLATES = ROOT / "everloop" / "cli" / "templates"  # files of users' projects, copied and never imported
FILES = sorted(path for path in (ROOT / "everloop").rglob("*.py") if not path.is_relative_to(TEMPLATES))


def imports(tree: ast.Module, eager_only: bool) -> list[tuple[str, int]]:
    """(module, line) of each import; with `eager_only`, not those inside functions or under TYPE_CHECKING."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and eager_only:
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                found.append((base, child.lineno))
                found.extend((f"{base}.{alias.name}", child.lineno) for alias in child.names)
            visit(child)

    visit(tree)
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    parts = path.relative_to(ROOT / "everloop").parts
    if len(parts) == 1:
        return
    room = ROOMS.index(parts[0])
    allowed = {"core"} if parts[0] == "client" else set(ROOMS[:room])
    for name, line in imports(ast.parse(path.read_text()), eager_only=False):
        pieces = name.split(".")
        if pieces[0] == "everloop" and len(pieces) > 1 and pieces[1] in ROOMS:
            assert pieces[1] in allowed | {parts[0]}, f"{path}:{line}: {parts[0]} may not import {pieces[1]}"


def test_there_is_no_import_cycle() -> None:
    names = {module_name(path) for path in FILES}
    graph = {
        module_name(path): {name for name, _ in imports(ast.parse(path.read_text()), eager_only=True) if name in names} - {module_name(path)}
        for path in FILES
    }
    state: dict[str, int] = {}

    def walk(name: str, trail: list[str]) -> None:
        state[name] = 1
        for target in sorted(graph[name]):
            if name.startswith(target + ".") or state.get(target) == 2:
                continue
            assert state.get(target) != 1, "cycle: " + " -> ".join([*trail[trail.index(target) :], target] if target in trail else [*trail, target])
            walk(target, [*trail, target])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            walk(name, [name])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_heavy_libraries_are_imported_where_used(path: Path) -> None:
    for name, line in imports(ast.parse(path.read_text()), eager_only=True):
        assert name.split(".")[0] not in HEAVY, f"{path}:{line}: import {name} inside the function that uses it"


def test_files_and_functions_stay_short() -> None:
    for path in FILES:
        text = path.read_text()
        lines = sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))
        assert lines <= 500, f"{path} has {lines} lines; split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or 0) - node.lineno + 1
                assert size <= 70, f"{path}:{node.lineno}: {node.name} has {size} lines; cut it up"


def test_import_everloop_is_light() -> None:
    code = (
        "import sys, everloop; everloop.__version__; heavy = [m for m in ('numpy', 'sqlalchemy', 'fastapi', 'pandas') if m in sys.modules];"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_command_line_and_the_app_import_nothing_heavy() -> None:
    """Each command starts by this, and the server does: what is heavy is imported where it is used."""
    code = (
        "import sys, tempfile\nfrom everloop.cli.main import program\nprogram()\nfrom everloop.core.settings import Settings\n"
        "from everloop.web.app import create_app\ncreate_app(Settings(home=tempfile.mkdtemp(), workers=0))\n"
        f"print(*sorted(({HEAVY!r} | {{'numpy', 'aiohttp', 'jwt', 'cryptography'}}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", f"imported at the start: {done.stdout}"


def test_what_templates_draw_is_there() -> None:
    from everloop.web.ui import draw

    folder = Path(draw.__file__).parents[1] / "templates"
    used = {name for page in folder.glob("*.html") for name in re.findall(r"\bdraw\.(\w+)\(", page.read_text(encoding="utf-8"))}
    assert len(used) > 1 and not {name for name in used if not hasattr(draw, name)}
