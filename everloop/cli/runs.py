"""`everloop runs` and `everloop experiments`: find runs, read one, get its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from everloop.core.clock import iso


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
        from rich.console import Console
        from rich.table import Table

        table = Table("id", "name", "kind", "status", "experiment", "started", "metrics")
        for run in _client().runs.search(filter, experiment, limit, **({"kind": kind} if kind else {}))["items"]:
            metrics = "  ".join(f"{key}={_short(value)}" for key, value in list(run["metrics"].items())[:4])
            table.add_row(run["id"], run["name"], run["kind"], run["status"], run["experiment"], iso(run["started_at"]), metrics)
        Console().print(table)

    @runs.command("show")
    def show(id: str = typer.Argument(help="The run's id")) -> None:
        """Show one run: params, metrics, tags, files."""
        import json

        client = _client()
        typer.echo(json.dumps({**client.runs.get(id), "artifacts": client.runs.artifacts(id)}, indent=2))

    @runs.command("artifacts")
    def artifacts(
        id: str = typer.Argument(help="The run's id"), to: Path = typer.Option(None, help="Write the files into this folder", file_okay=False)
    ) -> None:
        """List a run's files, or download them with --to."""
        client = _client()
        for file in client.runs.artifacts(id):
            typer.echo(f"{file['size']:>12}  {file['path']}")
            if to is not None:
                target = to / file["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(client.runs.get_artifact(id, file["path"]))

    @runs.command("delete")
    def delete(id: str = typer.Argument(help="The run's id")) -> None:
        """Put a run out of sight."""
        _client().runs.delete(id)

    app.add_typer(runs, name="runs")

    @app.command("experiments")
    def experiments(filter: str = typer.Option("", help="name LIKE 'cred%' and tags.team = 'risk'")) -> None:
        """List experiments, last changed first."""
        for one in _client().runs.experiments(filter):
            typer.echo(f"{one['id']:>6}  {one['name']}")


def _client() -> Any:
    from everloop.client import connect

    return connect()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
