"""Scorers that MLflow's clients registered for an experiment: versions of a serialised text, kept as it came. Nothing of it is run here."""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from everloop.assets import experiments
from everloop.core.errors import BadInput, NotFound
from everloop.core.refs import NAME_MAX
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import scorer_configs, scorers


def register(tx: Tx, experiment: str, name: str, body: str) -> dict[str, Any]:
    """The next version of a scorer. BadInput for a bad name or a body that is not JSON, NotFound for an unknown experiment."""
    _active(tx, experiment)
    if not name.strip() or len(name) > NAME_MAX:
        raise BadInput(f"{name!r} cannot name a scorer.", f"Use 1 to {NAME_MAX} characters.")
    try:
        orjson.loads(body)
    except ValueError:
        raise BadInput("serialized_scorer must be valid JSON") from None
    there = _versions(tx, experiment, name)
    row = {
        "project": tx.project,
        "experiment": experiment,
        "name": name,
        "version": there[-1]["version"] + 1 if there else 1,
        "id": there[0]["id"] if there else tx.clock.new_id(),
        "body": body,
        "created_at": tx.now,
        "created_by": tx.who.name,
    }
    tx.run(scorers.insert().values(**row))
    audit.record(tx, "scorer.register", f"scorer:{row['id']}", name=name, version=row["version"])
    return row


def newest(tx: Tx, wanted: list[str] | None) -> list[dict[str, Any]]:
    """The newest version of every scorer, of these experiments (None: of all), by experiment and name."""
    conditions = [scorers.c.project == tx.project]
    if wanted is not None:
        for one in wanted:
            _active(tx, one)
        conditions.append(scorers.c.experiment.in_(wanted))
    rows = tx.rows(sa.select(scorers).where(*conditions).order_by(scorers.c.experiment, scorers.c.name, scorers.c.version))
    return list({(row["experiment"], row["name"]): row for row in rows}.values())


def versions(tx: Tx, experiment: str, name: str) -> list[dict[str, Any]]:
    """All versions of a scorer, oldest first; NotFound if there is none."""
    _active(tx, experiment)
    found = _versions(tx, experiment, name)
    if not found:
        raise NotFound(f"Scorer with name '{name}' not found for experiment {experiment}.")
    return found


def get(tx: Tx, experiment: str, name: str, version: int | None = None) -> dict[str, Any]:
    """One version of a scorer, the newest where none is named."""
    found = versions(tx, experiment, name)
    if version is None:
        return found[-1]
    for one in found:
        if one["version"] == version:
            return one
    raise NotFound(f"Scorer with name '{name}' and version {version} not found for experiment {experiment}.")


def delete(tx: Tx, experiment: str, name: str, version: int | None = None) -> None:
    """Delete one version, or all; NotFound if there is none such."""
    row = get(tx, experiment, name, version)
    conditions = [scorers.c.project == tx.project, scorers.c.experiment == experiment, scorers.c.name == name]
    if version is not None:
        conditions.append(scorers.c.version == version)
    tx.run(scorers.delete().where(*conditions))
    if not _versions(tx, experiment, name):
        tx.run(scorer_configs.delete().where(scorer_configs.c.project == tx.project, scorer_configs.c.scorer == row["id"]))
    audit.record(tx, "scorer.delete", f"scorer:{row['id']}", name=name, version=version)


def configure(tx: Tx, experiment: str, name: str, rate: float, filter: str | None) -> dict[str, Any]:
    """Say which share of an experiment's traces a scorer is meant for; BadInput for a share outside 0 to 1."""
    if not 0 <= rate <= 1:
        raise BadInput(f"sample_rate must be between 0 and 1, not {rate}.")
    scorer = get(tx, experiment, name)
    there = tx.row(sa.select(scorer_configs).where(scorer_configs.c.project == tx.project, scorer_configs.c.scorer == scorer["id"]))
    row = {
        "project": tx.project,
        "id": there["id"] if there else tx.clock.new_id(),
        "scorer": scorer["id"],
        "experiment": experiment,
        "sample_rate": rate,
        "filter": filter,
        "updated_at": tx.now,
    }
    tx.upsert(scorer_configs, row)
    audit.record(tx, "scorer.configure", f"scorer:{scorer['id']}", sample_rate=rate)
    return row


def configs(tx: Tx, ids: list[str]) -> list[dict[str, Any]]:
    """What was configured for these scorers."""
    return tx.rows(sa.select(scorer_configs).where(scorer_configs.c.project == tx.project, scorer_configs.c.scorer.in_(ids)))


def _versions(tx: Tx, experiment: str, name: str) -> list[dict[str, Any]]:
    where = (scorers.c.project == tx.project, scorers.c.experiment == experiment, scorers.c.name == name)
    return tx.rows(sa.select(scorers).where(*where).order_by(scorers.c.version))


def _active(tx: Tx, experiment: str) -> None:
    if experiments.get(tx, experiment)["deleted_at"]:
        raise BadInput(f"The experiment {experiment} must be in the 'active' state. Current state is deleted.")
