"""`everloop runs` and `everloop experiments`: find runs, read one, get its files."""

from __future__ import annotations

from pathlib import Path

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    runs = typer.Typer(help="Executions with params, metrics and files.", no_args_is_help=True)

    @runs.command("list")
    def list_runs(
        filter: str = typer.Option("", help="MLflow's filter: metrics.auc > 0.8 and params.model = 'forest'"),
        experiment: str = typer.Option(None, help="Name of an experiment"),
        kind: str = typer.Option(None, help="training, evaluation, pipeline, step, index, batch, ingest or custom"),
        limit: int = typer.Option(20, help="How many"),
    ) -> None:
        """List runs, newest first."""
        rows = []
        for run in screen.client(start=True).runs.search(filter, experiment, limit, **({"kind": kind} if kind else {}))["items"]:
            metrics = "  ".join(f"{key}={screen.number(value)}" for key, value in list(run["metrics"].items())[:4])
            rows.append((run["id"], run["name"], run["kind"], run["status"], run["experiment"], screen.moment(run["started_at"]), metrics))
        screen.table(("id", "name", "kind", "status", "experiment", "started (UTC)", "metrics"), rows, "No run fits.")

    @runs.command("show")
    def show(id: str = typer.Argument(help="The run's id")) -> None:
        """Show one run: params, metrics, tags, files."""
        import json

        client = screen.client(start=True)
        typer.echo(json.dumps({**client.runs.get(id), "artifacts": client.runs.artifacts(id)}, indent=2))

    @runs.command("artifacts")
    def artifacts(
        id: str = typer.Argument(help="The run's id"), to: Path = typer.Option(None, help="Write the files into this folder", file_okay=False)
    ) -> None:
        """List a run's files, or download them with --to."""
        client = screen.client(start=True)
        for file in client.runs.artifacts(id):
            typer.echo(f"{file['size']:>12}  {file['path']}")
            if to is not None:
                target = to / file["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(client.runs.get_artifact(id, file["path"]))

    @runs.command("delete")
    def delete(id: str = typer.Argument(help="The run's id")) -> None:
        """Put a run out of sight."""
        screen.client(start=True).runs.delete(id)

    app.add_typer(runs, name="runs")
    app.command("sync")(sync)
    app.command("reproduce")(reproduce)

    @app.command("experiments")
    def experiments(filter: str = typer.Option("", help="name LIKE 'cred%' and tags.team = 'risk'")) -> None:
        """List experiments, last changed first."""
        for one in screen.client(start=True).runs.experiments(filter):
            typer.echo(f"{one['id']:>6}  {one['name']}")


def sync(everything: bool = typer.Option(False, "--all", help="Also what was meant for another server")) -> None:
    """Send what programs logged offline or could not send."""
    done = screen.client(start=True).runs.sync(everything)
    for one in done["refused"]:
        typer.echo(f"refused: run {one['run']}: {one['why']} (kept in {one['file']})", err=True)
    for one in done["elsewhere"]:
        what = f"run {one['run']}" if one["run"] else "spans"
        typer.echo(f"not here: {what}; it waits in {one['file']}: sync with the key of its project, or remove the file", err=True)
    sent = f"{len(done['runs'])} runs sent, {done['messages']} messages; {done['spans']} spans"
    typer.echo(sent if done["runs"] or done["spans"] else "Nothing waits to be sent.")
    if done["refused"] or done["elsewhere"]:
        raise typer.Exit(1)


def reproduce(
    id: str = typer.Argument(help="The run: run:ID, or its id"),
    into: Path = typer.Option(None, help="Where to; a new folder", file_okay=False),
    check: bool = typer.Option(False, "--check", help="Run it again, and compare the metrics"),
    env: bool = typer.Option(False, "--env", help="With --check: in a new environment with the packages of then"),
) -> None:
    """Bring a run's code and data to a folder, and run it again."""
    from everloop.client import reproduce as room

    client = screen.client(start=True)
    made = room.prepare(client, id, into)
    typer.echo(f"{made.folder} holds:")
    for line in made.said:
        typer.echo(f"  {line}")
    if made.command:
        typer.echo(f"It was started in {made.work} as: python {' '.join(made.command)}")
    if not check:
        return
    found = room.again(client, made, env)
    screen.table(("metric", "then", "now", ""), [(r["key"], r["then"], r["now"], "same" if r["same"] else "DIFFERS") for r in found["metrics"]])
    typer.echo(f"Made again as run {found['run']}" + ("" if found["returncode"] == 0 else f", which ended with {found['returncode']}"))
    if not found["same"]:
        raise typer.Exit(1)
