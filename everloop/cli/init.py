"""`everloop init`: a small project of one's own, from a template that runs as it is."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from everloop.core.errors import BadInput, Conflict, EverloopError

TEMPLATES = Path(__file__).parent / "templates"
CHOICES = {
    "tabular": "a table with a column to predict (CSV, Parquet): customers and who left, loans and who paid",
    "script": "a script that trains with scikit-learn and logs to MLflow, and the data that it reads",
    "rag": "documents that people ask about (PDF, HTML, Markdown, text)",
    "clustering": "a table without a column to predict, to find groups in",
    "blank": "something else: one step of your own, to start from",
}
"""Templates by name: what one has."""
RULES = {
    "binary": ["auc >= 0.65", "auc >= champion - 0.02", "cpu_p95_ms <= 50"],
    "multiclass": ["accuracy >= 0.5", "accuracy >= champion - 0.03", "cpu_p95_ms <= 50"],
    "regression": ["r2 >= 0.1", "rmse_ratio <= champion + 0.03", "cpu_p95_ms <= 50"],
}
"""What the gate of a tabular project begins with, by task."""


SAMPLES = {"tabular": "churn", "script": "churn", "rag": "handbook", "clustering": "segments"}
"""What the samples are called; data of one's own give their name instead."""
COMMON_NAMES = ("data", "docs", "documents", "files", "pdf", "pdfs", "train", "src")
"""Names of data that say nothing: the project is called like its folder then."""
OWN = {
    "rag": [
        (
            "`docs/` is a made-up handbook of a bicycle shop and `questions.jsonl` what one may ask about it.",
            "`DOCUMENTS` in it is your folder. `questions.jsonl` has first questions made from the documents' own words: some ask in\nother words, and some what the documents do not say. Passing the gate with them shows that the right document is found and that the rest is declined, not\nthat answers are good: put what your users ask in their place.",
        ),
        ("How many days of paid holiday do I have?", "YOUR QUESTION"),
        ("When are taxis paid?", "YOUR QUESTION"),
        ("Your own: change `DOCUMENTS` and write your questions; for an LLM", "For an LLM"),
    ],
    "tabular": [
        ("; `data/` holds made-up customers (1,200 rows, drawn by a random generator), so that it runs as it is.", "; `DATA` in it is your table."),
        ("data/customers.csv", "{data}"),
    ],
    "clustering": [
        ("; `data/` holds made-up customers (1,200 rows, drawn by a random generator), so that it runs as it is.", "; `DATA` in it is your table."),
        ("data/customers.csv", "{data}"),
    ],
    "script": [
        ("`train.py` is an ordinary script (pandas, scikit-learn, MLflow) on made-up customers", "`train.py` is your script"),
        ("data/customers.csv", "{data}"),
    ],
}
"""What a template's README says of its sample, and what it says of data of one's own instead."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("init")(init)


def init(
    folder: Path = typer.Argument(help="The folder to make it in (made if missing; nothing in it is overwritten)"),
    template: str = typer.Option(None, help=f"One of: {', '.join(CHOICES)}. Without it you are asked what you have"),
    data: Path = typer.Option(None, help="tabular and script: your CSV or Parquet file. rag: your folder of documents"),
    target: str = typer.Option(None, help="tabular and script: the column to predict"),
    script: Path = typer.Option(None, help="script: your training script"),
) -> None:
    """Make a small project of your own, to apply.

    One Python file that declares what there shall be, sample data or yours, a README. Then: everloop apply.
    """
    if template is None:
        template, data, target = ask(data, target)
    if template not in CHOICES:
        raise BadInput(f"There is no template {template!r}.", f"Templates: {', '.join(CHOICES)}.")
    files = contents(template)
    if data is not None:
        files = adapted(template, files, folder, data, target, script)
    elif target is not None or script is not None:
        raise BadInput("--target and --script go with data of your own, and none are given.", "Add --data FILE.")
    if template == "rag":
        files["project.py"] = with_llm(files["project.py"].decode()).encode()
    made = write(folder, files)
    for path in made:
        typer.echo(f"  {folder / path}")
    typer.echo(f"\nNext:\n  cd {folder}\n  everloop apply\nproject.py says what there shall be; README.md says how to go on.")


def ask(data: Path | None, target: str | None) -> tuple[str, Path | None, str | None]:
    """What somebody has, asked in plain words: (template, data, target). BadInput where nobody can be asked."""
    if not sys.stdin.isatty():
        raise BadInput("No template is named, and there is no one to ask.", f"Add --template {'|'.join(CHOICES)}.")
    typer.echo("What do you have?")
    names = list(CHOICES)
    for number, (name, what) in enumerate(CHOICES.items(), 1):
        typer.echo(f"  {number}  {what}  [{name}]")
    chosen = ""
    while chosen not in names:
        answer = typer.prompt("Number or name", default="1").strip()
        chosen = names[int(answer) - 1] if answer.isdigit() and 0 < int(answer) <= len(names) else answer
        if chosen not in names:
            typer.echo(f"Please give a number from 1 to {len(names)}.")
    if chosen in ("blank", "script") or data is not None:
        return chosen, data, target
    what = "your table (CSV or Parquet)" if chosen in ("tabular", "clustering") else "the folder of your documents"
    answer = typer.prompt(f"Path of {what}; Enter takes made-up ones", default="", show_default=False).strip()
    data = Path(answer).expanduser() if answer else None
    if chosen == "tabular" and data is not None and target is None:
        names = list(_table(data).column_names)
        typer.echo(f"Columns: {', '.join(names)}")
        target = typer.prompt("Which one shall be predicted?", default=names[-1]).strip()
    return chosen, data, target


def contents(template: str) -> dict[str, bytes]:
    """A template's files by path; `gitignore` becomes `.gitignore`."""
    root = TEMPLATES / template
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            inside = path.relative_to(root).as_posix()
            found[".gitignore" if inside == "gitignore" else inside] = path.read_bytes()
    if template in ("script", "clustering"):
        found["data/customers.csv"] = (TEMPLATES / "tabular" / "data" / "customers.csv").read_bytes()
    return found


def adapted(template: str, files: dict[str, bytes], folder: Path, data: Path, target: str | None, script: Path | None = None) -> dict[str, bytes]:
    """A template's files without its samples, its project file for data of the user's own; BadInput says why they cannot be used."""
    if template == "blank":
        raise BadInput("The template blank takes no data.", "Declare them in project.py: project.dataset or project.documents.")
    kept = {path: body for path, body in files.items() if not path.startswith(("data/", "docs/"))}
    where = _from(folder, data)
    if template == "rag":
        if not data.is_dir():
            raise BadInput(f"There is no folder {data}.", "Give a folder with PDF, HTML, Markdown or text files.")
        values: dict[str, Any] = {"DOCUMENTS": where}
        kept["questions.jsonl"] = questions(data)
    elif template == "clustering":
        _table(data)
        values = {"DATA": where, "TIME": None, "ID": None, "LEAVE_OUT": []}
    else:
        values = _of_table(data, target) | {"DATA": where}
        if template == "script":
            kept["train.py"] = _script(script)
            values["FILE"] = _read_path(kept["train.py"].decode(), data)
    called = folder.resolve().name if data.resolve().stem.lower() in COMMON_NAMES else data.resolve().stem
    name = re.sub(r"[^A-Za-z0-9]+", "-", called).strip("-").lower() or "mine"
    values["NAME"] = name
    for path in ("project.py", "README.md"):
        told = _set(files[path].decode(), values) if path == "project.py" else _own(files[path].decode(), template, where)
        kept[path] = re.sub(rf"\b{SAMPLES[template]}\b", name, told).encode()
    return kept


def questions(folder: Path) -> bytes:
    """First questions about a folder of documents, as JSON lines: made from headings and sentences, and some that are to be declined.

    Some are asked again in other words, some are about what the documents do not say. They show that the right document is found and that what is not
    there is declined, not that answers are good. BadInput where no document can be read.
    """
    from everloop.assets.documents import read
    from everloop.build.questions import outside, reworded
    from everloop.build.questions import questions as made_from

    found, paths = [], [p for p in sorted(folder.rglob("*")) if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    for path in paths:
        inside = path.relative_to(folder).as_posix()
        try:
            found.append(read(inside, path.read_bytes()).to_json())
        except BadInput as error:
            typer.echo(f"left out {inside}: {error.what}", err=True)
    if not found:
        raise BadInput(f"No document in {folder} can be read.", "Give a folder with PDF, HTML, Markdown or text files that hold text.")
    cases = made_from(found) or [
        {"question": f"What do the documents say about {one['title']}?", "kind": "answerable", "expected_sources": [one["path"]]} for one in found
    ]
    cases += [*reworded(cases), *outside(found)]
    typer.echo(
        f"{len(found)} of {len(paths)} files can be read; questions.jsonl has {len(cases)} first questions about them: put real ones in their place."
    )
    return ("\n".join([*(json.dumps(case, ensure_ascii=False) for case in cases), *_declined()]) + "\n").encode()


def _read_path(source: str, data: Path) -> str:
    """The path under which a script reads its data, where it says so in one place and the path stays inside its folder; else the data's own name."""
    found = {*re.findall(r"""read_(?:csv|parquet|table)\(\s*["']([^"']+)["']""", source)}
    inside = [path for path in found if not path.startswith("/") and ".." not in path.split("/") and "://" not in path]
    if len(inside) == 1:
        return inside[0]
    typer.echo(f"note: set FILE in project.py to the path under which the script reads its data (taken: {data.name}).", err=True)
    return data.name


def with_llm(source: str) -> str:
    """The rag project's file with the LLM that is there: a provider's key in the environment, or a server on this machine; else the extractive engine."""
    from everloop.engines.choose import choose

    spec, why = choose()
    typer.echo(why)
    return source if spec["name"] == "extractive" else _set(source, {"ENGINE": spec})


def _declined() -> list[str]:
    """The template's own questions that a good assistant declines, whatever the documents."""
    kept = (TEMPLATES / "rag" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in kept if json.loads(line)["kind"] in ("off_topic", "harmful", "injection")]


def _script(script: Path | None) -> bytes:
    if script is None or not script.is_file():
        raise BadInput(
            f"There is no script {script}." if script else "No script is named.", "Add --script FILE.py: the one that trains and logs to MLflow."
        )
    text = script.read_text(encoding="utf-8")
    if "registered_model_name" not in text:
        typer.echo(f"note: {script.name} registers no model; give log_model (or autolog) registered_model_name='NAME'.", err=True)
    return text.encode()


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write files into a folder; Conflict where one is there already, and nothing is written then."""
    there = [path for path in files if (folder / path).exists()]
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is a file.", "Name a folder.")
    if there:
        raise Conflict(f"{folder} has {', '.join(there)} already.", "Name another folder; nothing was written.")
    try:
        for path, body in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(body)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from None
    return [*files]


def _of_table(data: Path, target: str | None) -> dict[str, Any]:
    """The constants of a tabular project for a table: target, time column, rules that fit the task."""
    from everloop.assets.table_roles import infer_task
    from everloop.assets.table_stats import kind_of

    table = _table(data)
    if target is None:
        raise BadInput(f"Which column of {data.name} shall be predicted?", f"Add --target COLUMN; its columns: {', '.join(table.column_names)}.")
    if target not in table.column_names:
        raise BadInput(f"{data.name} has no column {target!r}.", f"Its columns: {', '.join(table.column_names)}.")
    task = infer_task(table, target, None)
    typer.echo(task["why"])
    dates = [one.name for one in table.schema if kind_of(one.type) == "datetime"]
    if len(dates) == 1:
        typer.echo(f"{dates[0]!r} holds dates: newer rows will test what older ones taught (TIME in project.py).")
    elif dates:
        typer.echo(f"{', '.join(dates)} hold dates: name the one that says when a row happened as TIME in project.py.")
    typer.echo("Look into project.py: name columns that only identify a row (ID), and groups that must be treated alike, such as gender (PROTECTED).")
    return {"TARGET": target, "TIME": dates[0] if len(dates) == 1 else None, "PROTECTED": [], "ID": None, "RULES": RULES[task["task"]]}


def _table(data: Path) -> Any:
    from everloop.assets.tables import read

    if not data.is_file():
        raise BadInput(f"There is no file {data}.", "Give a CSV or Parquet file.")
    return read(data).table


def _own(readme: str, template: str, where: str) -> str:
    """A template's README for data of one's own."""
    for said, instead in OWN[template]:
        readme = readme.replace(said, instead.replace("{data}", shlex.quote(where)))
    return readme


def _from(folder: Path, data: Path) -> str:
    """`data` as seen from `folder`: relative where they are near, else absolute."""
    import os

    far = os.path.relpath(data.resolve(), folder.resolve())
    return str(data.resolve()) if far.count("..") > 2 else far


def _set(source: str, values: dict[str, Any]) -> str:
    """The source with constants set: `NAME = value`, each on a line of its own, its comment kept."""
    for name, value in values.items():
        shown = (
            json.dumps(value)
            if isinstance(value, dict)
            else str(value).replace("'", '"')
            if isinstance(value, list)
            else f'"{value}"'
            if isinstance(value, str)
            else repr(value)
        )
        source, count = re.subn(rf"(?m)^{name} = [^#\n]*?(?=  #|$)", lambda _, n=name, s=shown: f"{n} = {s}", source)
        if count != 1:
            raise EverloopError(f"The template has {count} lines {name} = ...; one was expected.", "This is a fault of everloop's.")
    return source
