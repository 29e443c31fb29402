"""`everloop data`: load tables and documents, list and show datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from everloop.cli import data_store, screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    data = typer.Typer(no_args_is_help=True, help="Datasets: tables, files and documents, versioned.")
    data.command("add")(add)
    data.command("add-documents")(add_documents)
    data.command("list")(list_datasets)
    data.command("show")(show)
    data.command("diff")(diff)
    data.command("checkout")(checkout)
    data.command("status")(status)
    data.command("tag")(tag)
    data.command("split")(split)
    data.command("gc")(gc)
    data_store.add_to(data)
    app.add_typer(data, name="data")


def add(
    name: str = typer.Argument(help="Name of the dataset"),
    file: Path = typer.Argument(help="A table (CSV, Parquet, Arrow, Feather); or any file or folder, which is kept as it is"),
    target: str = typer.Option(None, help="Column to predict"),
    time: str = typer.Option(None, help="Column that says when"),
    positive: str = typer.Option(None, help="Value of the target that one looks for"),
    protected: list[str] = typer.Option(None, help="Protected attribute, for fairness (may be given again)"),
    id: str = typer.Option(None, help="Column that names a row"),
    contract: Path = typer.Option(None, help="JSON file with the data contract"),
    documents: bool = typer.Option(False, "--documents", help="Read PDF, HTML, Markdown and text, for retrieval"),
    pin: bool = typer.Option(False, "--pin", help="Write PATH.everloop for git to hold, and have git ignore PATH"),
    files: bool = typer.Option(False, "--files", help="Keep a table's file as it is too, without reading it"),
    description: str = "",
    as_json: bool = screen.JSON,
) -> None:
    """Add a table, a file or a folder as the next version of a dataset."""
    client = screen.client(start=True)
    if documents:
        made = client.data.add_documents(name, file, description=description)
        screen.say_json(made) if as_json else _said(made)
        return
    roles = {"target": target, "time": time, "positive": positive, "protected": protected or (), "id": id}
    with screen.progress() as progress:
        more = {"as_files": files, "keep_file": pin, "progress": progress, "description": description}
        made = client.data.add(name, file, **roles, contract=_contract(contract), **more)
    screen.say_json(made) if as_json else _said(made)
    if pin:
        typer.echo(f"pinned by {client.data.pin(made, file)}; commit it with .gitignore", err=as_json)


def add_documents(
    name: str = typer.Argument(help="Name of the dataset"),
    paths: list[Path] = typer.Argument(help="Folders and files: PDF, HTML, Markdown, text"),
    description: str = "",
) -> None:
    """Load documents as the next version of a dataset; says what could not be read, and why."""
    _said(screen.client(start=True).data.add_documents(name, paths, description=description))


def list_datasets(search: str = typer.Argument("", help="Part of a name"), limit: int = 20, as_json: bool = screen.JSON) -> None:
    """List datasets by last change, newest first."""
    found = screen.client(start=True).data.list(search, limit)
    if as_json:
        screen.say_json(found)
        return
    rows = [
        [one["name"], one["latest"], ", ".join(one["aliases"]), screen.moment(one["updated_at"]), screen.cut(one["description"], 60)] for one in found
    ]
    screen.table(["dataset", "latest", "aliases", "changed", "description"], rows, "There is no dataset yet: everloop data add NAME PATH")


def show(
    ref: str = typer.Argument(help="NAME@VERSION; the latest without version"),
    rows: int = typer.Option(5, help="Rows to show"),
    as_json: bool = screen.JSON,
) -> None:
    """Show a dataset: columns with statistics, roles, notes, first rows or files."""
    from rich.console import Console
    from rich.table import Table

    client, console = screen.client(start=True), Console()
    asset = client.data.get(ref)
    if as_json:
        screen.say_json(asset)
        return
    manifest = asset["manifest"]
    _said(asset)
    if manifest["format"] == "table":
        table = Table("column", "type", "missing", "distinct", "min", "mean", "max", "most frequent")
        for column in manifest["schema"]:
            stats = manifest["stats"][column["name"]]
            top = ", ".join(f"{v} ({c})" for v, c in stats["top"][:3])
            figures = [screen.number(stats[key], 5) for key in ("missing", "distinct", "min", "mean", "max")]
            table.add_row(column["name"], column["type"], *figures, top)
        console.print(table)
    if rows > 0:
        found = client.data.rows(ref if "#" in ref else asset["ref"], rows)
        table = Table(*found["columns"])
        for row in found["rows"]:
            table.add_row(*[screen.number(v, 5) for v in row])
        console.print(table)


def diff(
    old: str = typer.Argument(help="dataset:NAME@VERSION"),
    new: str = typer.Argument("", help="The other version; the latest where none is named"),
    key: list[str] = typer.Option(None, help="Column that names a row (may be given again); else the dataset's id column"),
    rows: int = typer.Option(5, help="Example rows of each sort"),
    as_json: bool = screen.JSON,
) -> None:
    """Compare two versions: schema, rows, statistics; or files."""
    from everloop.cli import data_diff

    found = screen.client(start=True).data.diff(old, new, key=key or (), limit=rows)
    screen.say_json(found) if as_json else data_diff.say(found)


def checkout(
    ref: str = typer.Argument(None, help="NAME@VERSION; a pin's file; without, all pins of this folder and below"),
    path: Path = typer.Argument(None, help="Where to; else a folder of the dataset's name here (a table: NAME.parquet)"),
    force: bool = typer.Option(False, "--force", help="Replace changed files, also those whose content is stored nowhere"),
) -> None:
    """Bring a version's files here, verified; what is there already stays."""
    if ref is None or Path(ref).is_file():
        with screen.progress() as progress:
            brought = screen.client(start=True).data.restore(ref or ".", force=force, progress=progress)
        for one in brought:
            typer.echo(f"{one['ref']} is in {one['path']}: {one['written']:,} files written")
        if not brought:
            typer.echo("There is no pin here: make one with everloop data add NAME PATH --pin, or name a version.")
        return
    with screen.progress() as progress:
        done = screen.client(start=True).data.checkout(ref, path, force=force, progress=progress)
    typer.echo(f"{done['ref']} is in {done['path']}: {done['files']:,} files, {done['written']:,} written")


def status(
    folder: Path = typer.Argument(Path("."), help="Folder whose pins, and those below it, are looked at"), as_json: bool = screen.JSON
) -> None:
    """Say how pinned data differ from what is here."""
    found = screen.client(start=True).data.status(folder)
    if as_json:
        screen.say_json(found)
        return
    for one in found:
        newer = f"; version {one['newer']} is newer" if one["newer"] else ""
        typer.echo(f"{one['path']}: {one['state']} ({one['ref']}{newer})")
        for mark, kind in (("+", "added"), ("-", "removed"), ("~", "changed")):
            for path in one[kind][:20]:
                typer.echo(f"  {mark} {path}")
            if len(one[kind]) > 20:
                typer.echo(f"  {mark} and {len(one[kind]) - 20:,} more")
    if not found:
        typer.echo("There is no pin here: make one with everloop data add NAME PATH --pin")


def split(
    ref: str = typer.Argument(help="NAME@VERSION; the latest without version"),
    parts: list[str] = typer.Argument(help="NAME=SHARE, for example: train=0.8 test=0.2"),
    seed: int = typer.Option(0, help="The same seed gives the same rows"),
    stratify: str = typer.Option("", help="Column whose classes keep their shares"),
    group: str = typer.Option("", help="Column whose groups stay together"),
    time: str = typer.Option("", help="Column by which the oldest rows go into the first part"),
) -> None:
    """Name parts of a version's rows or files; NAME@VERSION#PART reads one."""
    from everloop.core.errors import BadInput

    try:
        shares = {name: float(share) for name, _, share in (part.partition("=") for part in parts)}
    except ValueError:
        raise BadInput(f"{' '.join(parts)} names no shares.", "Write, for example: train=0.8 test=0.2") from None
    made = screen.client(start=True).data.split(ref, shares, seed=seed, stratify=stratify, group=group, time=time)
    _said(made)


def tag(
    ref: str = typer.Argument(help="NAME@VERSION; the latest without version"),
    names: list[str] = typer.Argument(help="Names (aliases) that move to this version, and KEY=VALUE tags; KEY= removes one"),
) -> None:
    """Give a version names and tags: everloop data tag credit@3 gold source=bank."""
    pairs = {key: value or None for key, mark, value in (name.partition("=") for name in names) if mark}
    made = screen.client(start=True).data.tag(ref, *(name for name in names if "=" not in name), **pairs)
    told = ", ".join(f"{k}={v}" for k, v in made["tags"].items())
    typer.echo(f"{made['ref']}: names {', '.join(made['aliases']) or 'none'}; tags {told or 'none'}")


def gc(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go"),
    grace: float = typer.Option(24.0, help="Keep what was written or found again within so many hours"),
    as_json: bool = screen.JSON,
) -> None:
    """Delete bytes that nothing refers to any more (admins)."""
    done = screen.client(start=True).data.gc(grace=grace * 3600, dry_run=dry_run)
    if as_json:
        screen.say_json(done)
        return
    verb = "would go" if dry_run else "are gone"
    typer.echo(f"{done['deleted']:,} objects ({done['deleted_bytes']:,} bytes) {verb}; {done['kept']:,} ({done['kept_bytes']:,} bytes) stay")
    if done["young"]:
        typer.echo(f"{done['young']:,} files that nothing refers to are younger than {grace:g} hours and stay for now")
    for note in done["notes"]:
        typer.echo(f"note: {note}")


def _said(asset: dict[str, Any]) -> None:
    manifest = asset["manifest"]
    if manifest["format"] == "table":
        typer.echo(f"{asset['ref']}: {manifest['rows']:,} rows, {len(manifest['schema'])} columns")
        if manifest["task"]:
            typer.echo(manifest["task"]["why"])
        _parts(manifest)
        roles = ", ".join(f"{k}: {', '.join(v) if isinstance(v, list) else v}" for k, v in manifest["roles"].items() if v)
        typer.echo(f"roles: {roles or 'none'}")
        for note in manifest["notes"]:
            typer.echo(f"note: {note}")
        return
    if manifest["format"] == "files":
        count, size = manifest.get("count", len(manifest["files"])), manifest.get("bytes", sum(f["size"] for f in manifest["files"]))
        kinds = ", ".join(f"{t['count']:,} {t['type'] or 'without ending'}" for t in manifest.get("types", [])[:5])
        typer.echo(f"{asset['ref']}: {count:,} files, {size:,} bytes" + (f" ({kinds})" if kinds else ""))
        _parts(manifest)
        return
    chars, pages = sum(d["chars"] for d in manifest["documents"]), sum(d["pages"] or 0 for d in manifest["documents"])
    typer.echo(f"{asset['ref']}: {len(manifest['documents']):,} documents, {chars:,} characters" + (f", {pages:,} PDF pages" if pages else ""))
    for one in manifest["skipped"]:
        typer.echo(f"skipped {one['path']}: {one['why']}")


def _parts(manifest: dict[str, Any]) -> None:
    """What splits a version has, and whether it keeps its contract."""
    names = (manifest.get("splits") or {}).get("names") or {}
    if names:
        typer.echo("splits: " + ", ".join(f"{name} {n:,}" for name, n in names.items()))
    report = manifest.get("contract_report")
    if report:
        typer.echo("contract: kept" if report["ok"] else f"contract: broken in {report['total']:,} places, recorded: {report['counts']}")


def _contract(path: Path | None) -> Any:
    import json

    from everloop.core.errors import BadInput

    if path is None:
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput(f"The contract {path} cannot be read: {error}.", "Give a JSON file.") from None
