"""The pages are true: commands and options exist, programs parse and call what is there, requests have routes, links lead somewhere.

Programs of the pages in RUN are run as they stand, in order, against a real server.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import everloop
from everloop.cli.main import program
from everloop.client.base import Client, _namespaces
from everloop.client.declare import Project
from everloop.client.pipelines import Step
from tests.conftest import running_server
from tests.docs.reading import PAGES, ROOT, Block, anchors, blocks, commands, inline, prose

RUN = (
    "README.md",
    "docs/guides/start.md",
    "docs/guides/data.md",
    "docs/guides/tracking.md",
    "docs/guides/policies.md",
    "docs/guides/keep.md",
    "docs/guides/suites.md",
    "docs/guides/pipelines.md",
    "docs/reference/sdk.md",
)
"""Pages whose Python blocks run as they stand."""
NAMED = [page.relative_to(ROOT).as_posix() for page in PAGES]
PRESENT = [name for name in NAMED if name != "CHANGELOG.md"]
"""Pages that say how things are; the changelog says how they came."""
STEP = {*re.findall(r"self\.(\w+)", inspect.getsource(Step.__init__)), *(n for n in vars(Step) if not n.startswith("_"))}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, without workers."""
    with running_server(tmp_path_factory.mktemp("home"), workers=0) as url:
        yield url


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(method, path) of every route of the REST API, params as {}."""
    from everloop.core.settings import Settings
    from everloop.web.app import create_app

    app = create_app(Settings(home=tmp_path_factory.mktemp("routes"), workers=0))
    found = {(method.upper(), re.sub(r"\{[^}]+\}", "{}", path)) for path, verbs in app.openapi()["paths"].items() for method in verbs}
    assert len(found) > 50
    return found


@pytest.mark.parametrize("name", PRESENT)
def test_commands_and_their_options_exist(name: str) -> None:
    for where, words in commands(ROOT / name):
        if words[0] == "./dev":
            words = dev_words(where, words[1:])
        if words and words[0] == "everloop":
            check_command(where, words[1:])


@pytest.mark.parametrize("name", PRESENT)
def test_programs_call_what_is_there(name: str) -> None:
    for block in blocks(ROOT / name):
        if block.language == "python":
            check_program(block)


@pytest.mark.parametrize("name", RUN)
def test_programs_run(name: str, url: str, tmp_path: Path) -> None:
    found = [block for block in blocks(ROOT / name) if block.language == "python" and "import everloop" in block.text]
    assert found, f"{name} has no program to run"
    for number, block in enumerate(found):
        file = tmp_path / f"block{number}.py"
        file.write_text(block.text)
        env = {"EVERLOOP_URL": url, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, str(file)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", PRESENT)
def test_requests_have_a_route_and_settings_a_reader(name: str, routes: set[tuple[str, str]]) -> None:
    for text in inline(ROOT / name):
        asked = re.match(r"(GET|POST|PUT|PATCH|DELETE) (/api/v1/[^\s?]*)", text)
        if asked:
            assert (asked[1], re.sub(r"\{[^}]+\}", "{}", asked[2])) in routes, f"{name}: there is no route {text}"
    for variable in set(re.findall(r"\bEVERLOOP_[A-Z_]+\b", (ROOT / name).read_text())):
        assert variable in settings_read(), f"{name}: nothing reads {variable}"


@pytest.mark.parametrize("name", NAMED)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(there), f"{name}: {target}: there is no such heading"


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_and_functions_named_exist(name: str) -> None:
    places = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?", (ROOT / name).read_text())
    assert len(places) > (20 if name == "ARCHITECTURE.md" else 0)
    for path, function in places:
        file = next((base / path for base in (ROOT / "everloop", ROOT) if (base / path).is_file()), None)
        if "/" not in path:
            file = file or next((ROOT / "everloop").rglob(path), None)
        assert file is not None, f"{name}: there is no file {path}"
        if function:
            assert function in names_in(file), f"{name}: {path} has no {function}"


def test_every_room_has_its_row_in_the_architecture() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)/`", (ROOT / "ARCHITECTURE.md").read_text())
    rooms = [p.name for p in (ROOT / "everloop").iterdir() if (p / "__init__.py").is_file()]
    assert sorted(rows) == sorted(rooms)


def test_every_command_says_what_it_does_in_one_line() -> None:
    for path, command in every_command(typer.main.get_command(program())):
        told = (command.help or "").strip().splitlines()[0] if command.help else ""
        assert 10 <= len(told) <= (66 if " " not in path else 160), f"everloop {path}: its help is {told!r}"


def dev_words(where: str, words: list[str]) -> list[str]:
    """What ./dev runs: nothing to check for its own commands, else the command itself."""
    own = re.findall(r"(?m)^    ([\w|-]+)\)", (ROOT / "dev").read_text())
    known = {name for line in own for name in line.split("|")}
    first = words[0] if words else "help"
    if first in ("demo", "ANYTHING", "CMD"):
        return ["everloop", *words] if first == "demo" else []
    assert first in known or first == "everloop" or shutil.which(first), f"{where}: ./dev has no {first}"
    return words if first == "everloop" else []


def check_command(where: str, words: list[str]) -> None:
    """Walk the groups, then count arguments and look options up. Words in capitals stand for values; `...` for more."""
    import click

    command: Any = typer.main.get_command(program())
    path = ["everloop"]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        names = words[0].split("|")
        if "..." in names or words[0].isupper():
            return
        for name in names:
            assert name in command.commands, f"{where}: {' '.join(path)} has no command {name!r}; it has: {', '.join(sorted(command.commands))}"
        if len(names) > 1:
            return
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    options = {
        name: p for p in command.params if isinstance(p, click.Option) or p.param_type_name == "option" for name in [*p.opts, *p.secondary_opts]
    }
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    given, rest = 0, [w for w in words if w not in ("...", "[...]")]
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            assert name in options or name == "--help", f"{where}: {' '.join(path)} has no option {name}; it has: {', '.join(sorted(options))}"
            if name != "--help" and not options[name].is_flag and not equals:
                assert rest, f"{where}: {name} needs a value"
                rest.pop(0)
        else:
            given += 1
    if len(path) > 1 and (given or words) and not hasattr(command, "commands"):
        most = None if any(a.nargs == -1 for a in arguments) else len(arguments)
        assert most is None or given <= most, f"{where}: {' '.join(path)} takes at most {most} arguments, {given} are given"
        if "`" not in where:
            assert given >= sum(a.required for a in arguments), f"{where}: {' '.join(path)} needs more arguments"


def check_program(block: Block) -> None:
    """Parse a program; imports, and calls on the client, a project, a step and everloop's modules, name what exists and give what it takes."""
    from everloop.checks import checks
    from everloop.evaluate.rules import parse

    tree = ast.parse(block.text, str(block))
    known: dict[str, Any] = {"client": Client, "project": Project} if "everloop" in block.text else {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: everloop for alias in node.names if alias.name == "everloop" and alias.asname}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "everloop":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                known[alias.asname or alias.name] = named(module, alias.name, block)
    for node in ast.walk(tree):
        chain = dotted(node.func if isinstance(node, ast.Call) else node)
        if chain and known and chain[0] == "step" and len(chain) > 1 and chain[1] not in ("client", "run"):
            assert chain[1] in STEP, f"{block}: a step has no {chain[1]}"
        if chain and chain[0] in known and len(chain) > 1:
            found = known[chain[0]]
            for name in chain[1:]:
                found = named(found, name, block)
            if isinstance(node, ast.Call) and inspect.isfunction(found):
                check_call(node, found, block)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w[\w@(),= ]* (>=|<=|>|<) [\w .+-]+", node.value):
            parse(node.value)
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "check" and isinstance(value, ast.Constant):
                    checks.get(str(value.value))


def named(thing: Any, name: str, block: Block) -> Any:
    """An attribute of a module or class, or a namespace of the client; a failure says which is missing."""
    if thing is Client and name in _namespaces():
        return getattr(importlib.import_module(f"everloop.client.{name}"), name.capitalize())
    if inspect.ismodule(thing) and not hasattr(thing, name):
        try:
            return importlib.import_module(f"{thing.__name__}.{name}")
        except ImportError:
            pass
    assert hasattr(thing, name), f"{block}: {getattr(thing, '__name__', thing)} has no {name!r}"
    return getattr(thing, name)


def check_call(node: ast.Call, function: Any, block: Block) -> None:
    """Whether a call gives what the function takes."""
    if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
        return
    itself = [None] if next(iter(inspect.signature(function).parameters), "") == "self" else []
    try:
        inspect.signature(function).bind(*itself, *node.args, **{str(k.arg): k.value for k in node.keywords})
    except TypeError as error:
        raise AssertionError(f"{block}: {function.__qualname__}: {error}") from None


def dotted(node: ast.AST) -> list[str]:
    """["client", "gates", "declare"] of `client.gates.declare`; a call to connect() counts as the client; [] for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Call) and dotted(node.func)[-1:] == ["connect"]:
        return ["client"]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []


def every_command(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(words, command) of every command and group."""
    for name, inner in getattr(command, "commands", {}).items():
        yield f"{path}{name}", inner
        yield from every_command(inner, f"{path}{name} ")


def names_in(file: Path) -> set[str]:
    """Functions, classes, methods and constants of a file, as ARCHITECTURE.md writes them."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else [n for n in ast.walk(node) if n is not node]
            found |= {f"{node.name}.{n.name}" for n in inner if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        elif isinstance(node, ast.Assign):
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def settings_read() -> set[str]:
    """Environment variables that the code reads, by name."""
    from dataclasses import fields

    from everloop.core.settings import Settings

    text = "\n".join(p.read_text() for p in [*(ROOT / "everloop").rglob("*.py"), ROOT / "dev"])
    return {*re.findall(r"EVERLOOP_[A-Z_]+", text), *(f"EVERLOOP_{f.name.upper()}" for f in fields(Settings))}


def test_the_collectors_configuration_fits_together() -> None:
    """Every component that the service names is configured, its pipelines are the signals that are taken here, and the exporter speaks to them."""
    import yaml

    from everloop.core.settings import DEFAULT_PORT
    from everloop.protocols.otlp import SIGNALS

    text = re.search(r"```yaml\n(receivers:.*?)```", (ROOT / "docs/guides/traces.md").read_text(), re.S)
    assert text is not None
    config = yaml.safe_load(text[1])
    assert set(config) == {"receivers", "processors", "extensions", "exporters", "service"}
    assert set(config["service"]["pipelines"]) == set(SIGNALS) and set(config["service"]["extensions"]) <= set(config["extensions"])
    for pipeline in config["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert pipeline[part] and set(pipeline[part]) <= set(config[part])
    exporter = config["exporters"]["otlphttp/everloop"]
    assert exporter["endpoint"] == f"http://127.0.0.1:{DEFAULT_PORT}" and exporter["headers"]["authorization"].startswith("Bearer ")
    assert exporter["sending_queue"]["storage"] in config["extensions"] and exporter["compression"] == "gzip"
