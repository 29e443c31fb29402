"""The tables of records. Every row belongs to a project; times are epoch seconds (UTC); JSON columns hold plain values.

Alembic migrations in `store/migrations` bring an older database to this shape; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.schema import SchemaItem

metadata = MetaData()


def _table(name: str, *columns: SchemaItem, **more: Any) -> Table:
    return Table(name, metadata, *columns, **more)


projects = _table(
    "projects",
    Column("name", String(250), primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("settings", JSON, nullable=False, default=dict),
)

users = _table(
    "users",
    Column("name", String(250), primary_key=True),
    Column("password", String(300), nullable=False),  # scrypt, see store/keys.py; "" where only OpenID Connect signs in
    Column("site_admin", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Column("disabled_at", Float),
)

members = _table(
    "members",
    Column("project", String(250), primary_key=True),
    Column("user", String(250), primary_key=True),
    Column("role", String(20), nullable=False),
)

keys = _table(
    "keys",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("name", String(250), nullable=False),
    Column("role", String(20), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of a 256-bit random key; never the key
    Column("hint", String(20), nullable=False),  # first characters, to recognise it by
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Index("keys_by_project", "project", "name"),
)

sessions = _table(  # sign-ins of the UI
    "sessions",
    Column("digest", String(64), primary_key=True),
    Column("user", String(250), nullable=False),
    Column("project", String(250), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

assets = _table(
    "assets",
    Column("project", String(250), primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),  # BLAKE3 of the manifest's canonical JSON
    Column("manifest", JSON, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("tags", JSON, nullable=False, default=dict),
    Column("run", String(64)),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("updated_at", Float),  # null: its description and stage are as they were made
    Column("deleted_at", Float),
    Index("assets_by_digest", "project", "kind", "name", "digest"),
    Index("assets_by_time", "project", "kind", "created_at"),
)

aliases = _table(
    "aliases",
    Column("project", String(250), primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("alias", String(100), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("decision", String(32)),  # null: the alias is ungated
    Column("moved_at", Float, nullable=False),
    Column("moved_by", String(250), nullable=False),
)

alias_moves = _table(  # every move, for history and rollback
    "alias_moves",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("name", String(250), nullable=False),
    Column("alias", String(100), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),  # null: the alias was deleted
    Column("decision", String(32)),
    Column("why", Text, nullable=False, default=""),
    Column("at", Float, nullable=False),
    Column("by", String(250), nullable=False),
    Index("alias_moves_of", "project", "kind", "name", "alias", "at"),
)

edges = _table(  # lineage: `source` was used to make, or is part of, `target`; both are references or `run:ID`
    "edges",
    Column("project", String(250), primary_key=True),
    Column("source", String(300), primary_key=True),
    Column("target", String(300), primary_key=True),
    Column("relation", String(30), primary_key=True),  # read | made | pins | part_of | derived
    Column("at", Float, nullable=False),
    Index("edges_back", "project", "target"),
)

derivations = _table(  # which rows or documents of `source` came into `target`, where a step declared it; the numbers are an object
    "derivations",
    Column("project", String(250), primary_key=True),
    Column("source", String(300), primary_key=True),
    Column("target", String(300), primary_key=True),
    Column("run", String(64), primary_key=True),  # that declared it; "" where none did
    Column("form", String(10), nullable=False),  # all | none | rows | part
    Column("part", String(250), nullable=False, default=""),
    Column("digest", String(64)),  # of the numbers (assets/derivations.py), or of the object that says which split a row is in
    Column("count", BigInteger),  # rows or documents that came into the target
    Column("of", BigInteger),  # those that the source has
    Column("into", BigInteger),  # those that the target has; null: it has none
    Column("why", Text, nullable=False, default=""),
    Column("at", Float, nullable=False),
    Column("by", String(250), nullable=False),
    Index("derivations_of", "project", "target"),
)

experiments = _table(
    "experiments",
    Column("project", String(250), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("name", String(500), nullable=False),
    Column("tags", JSON, nullable=False, default=dict),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("deleted_at", Float),
    Index("experiments_by_name", "project", "name", unique=True),
)

runs = _table(
    "runs",
    Column("project", String(250), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("experiment", String(32), nullable=False, default="0"),
    Column("name", String(500), nullable=False),
    Column("kind", String(30), nullable=False),  # training | evaluation | pipeline | step | index | batch | ingest | custom
    Column("status", String(20), nullable=False),  # running | scheduled | finished | failed | killed
    Column("parent", String(64)),
    Column("pipeline", String(250)),
    Column("code", JSON, nullable=False, default=dict),  # {"commit", "dirty", "asset", "command", "entry"}
    Column("environment", JSON, nullable=False, default=dict),
    Column("error", Text, nullable=False, default=""),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("created_by", String(250), nullable=False),
    Column("deleted_at", Float),
    Index("runs_by_time", "project", "experiment", "started_at"),
    Index("runs_by_parent", "project", "parent"),
)

run_params = _table(
    "run_params",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

run_tags = _table(
    "run_tags",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

run_metrics = _table(  # the latest point of each series
    "run_metrics",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Float),  # null with `special` set where it is nan, inf or -inf
    Column("special", String(4)),
    Column("step", BigInteger, nullable=False, default=0),
    Column("at", Float, nullable=False),
)

metric_blocks = _table(  # all points of a series, packed: 24 bytes each of time (f64), step (i64) and value (f64), little-endian, as they came
    "metric_blocks",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # rising
    Column("points", Integer, nullable=False),
    Column("first", Float, nullable=False),  # least time
    Column("last", Float, nullable=False),  # greatest time
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

run_artifacts = _table(  # named files of a run; the bytes are objects
    "run_artifacts",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("path", String(500), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String(250)),  # who wrote it; null where it was written before this was kept
)

run_inputs = _table(  # data sets that a run read, as the client described them
    "run_inputs",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("name", String(500), primary_key=True),
    Column("digest", String(100), primary_key=True),
    Column("context", String(250), nullable=False, default=""),  # training, evaluation ...
    Column("body", JSON, nullable=False),  # {"source_type", "source", "schema", "profile", "tags"}
    Column("at", Float, nullable=False),
)

logged_models = _table(  # models that a client logged, before (or without) being registered as an asset
    "logged_models",
    Column("project", String(250), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("experiment", String(32), nullable=False),
    Column("run", String(64)),
    Column("name", String(500), nullable=False),
    Column("kind", String(100), nullable=False, default=""),
    Column("status", String(20), nullable=False),  # pending | ready | failed
    Column("params", JSON, nullable=False, default=dict),
    Column("tags", JSON, nullable=False, default=dict),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("deleted_at", Float),
    Index("logged_models_of", "project", "experiment", "created_at"),
)

run_models = _table(  # which logged models a run read or made
    "run_models",
    Column("project", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("direction", String(10), primary_key=True),  # input | output
    Column("step", BigInteger, nullable=False, default=0),
    Column("at", Float, nullable=False),
    Index("run_models_of", "project", "model"),
)

model_metrics = _table(  # metric points that a client tied to a logged model
    "model_metrics",
    Column("project", String(250), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("dataset_name", String(500), primary_key=True, default=""),
    Column("dataset_digest", String(100), primary_key=True, default=""),
    Column("value", Float),
    Column("special", String(4)),
    Column("at", Float, nullable=False),
)

scores = _table(  # judgements of runs and assets; those of traces live in telemetry
    "scores",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("subject", String(300), nullable=False),  # a reference, run:ID, monitor:NAME, decision:ID
    Column("name", String(250), nullable=False),
    Column("value", Float),
    Column("text", Text),
    Column("verdict", String(20), nullable=False),
    Column("n", BigInteger, nullable=False, default=0),
    Column("low", Float),
    Column("high", Float),
    Column("source", String(300), nullable=False, default=""),
    Column("why", Text, nullable=False, default=""),
    Column("details", JSON, nullable=False, default=dict),
    Column("at", Float, nullable=False),
    Column("by", String(250), nullable=False),
    Index("scores_of", "project", "subject", "name", "at"),
)

eval_sets = _table(  # evaluation data sets; their records are versions of the table `dataset:ASSET`
    "eval_sets",
    Column("project", String(250), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("name", String(250), nullable=False),
    Column("asset", String(250), nullable=False),
    Column("version", Integer),  # null: it had no record yet
    Column("count", Integer, nullable=False, default=0),
    Column("tags", JSON, nullable=False, default=dict),
    Column("experiments", JSON, nullable=False, default=list),
    Column("fields", JSON, nullable=False, default=dict),  # types of the records' fields
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
    Index("eval_sets_by_time", "project", "created_at"),
)

scorers = _table(  # what MLflow's clients registered to judge with, as text
    "scorers",
    Column("project", String(250), primary_key=True),
    Column("experiment", String(32), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("id", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
)

scorer_configs = _table(
    "scorer_configs",
    Column("project", String(250), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("scorer", String(40), nullable=False),
    Column("experiment", String(32), nullable=False),
    Column("sample_rate", Float, nullable=False),
    Column("filter", Text),
    Column("updated_at", Float, nullable=False),
)

gates = _table(  # what must hold before an alias moves
    "gates",
    Column("project", String(250), primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("alias", String(100), primary_key=True),
    Column("spec", JSON, nullable=False),  # {"suite", "requirements": [...], "alpha", "approval": bool, "expires_days"}
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
)

decisions = _table(
    "decisions",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("name", String(250), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("alias", String(100), nullable=False),
    Column("against", Integer),
    Column("verdict", String(20), nullable=False),
    Column("why", Text, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("spec", JSON, nullable=False),  # the gate as it stood
    Column("evidence", String(64), nullable=False, default=""),  # digest of an object with the results by case
    Column("approval", String(20), nullable=False, default="not_needed"),  # not_needed | pending | approved | rejected
    Column("approved_by", String(250)),
    Column("approved_at", Float),
    Column("approval_why", Text, nullable=False, default=""),
    Column("at", Float, nullable=False),
    Column("by", String(250), nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("decisions_of", "project", "kind", "name", "at"),
)

endpoints = _table(
    "endpoints",
    Column("project", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("kind", String(20), nullable=False),  # predict | chat
    Column("spec", JSON, nullable=False),  # {"release": NAME, "split": [{"alias", "weight"}], "shadow": alias|null, "limits": {...}}
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
)

pipelines = _table(
    "pipelines",
    Column("project", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("spec", JSON, nullable=False),  # {"steps": [{"name", "call", "after", "params"}], "code": "code:x@1"|null, "params": {}}
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
)

schedules = _table(
    "schedules",
    Column("project", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("pipeline", String(250), nullable=False),
    Column("cron", String(100), nullable=False),
    Column("params", JSON, nullable=False, default=dict),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("next_at", Float, nullable=False),
    Column("last_at", Float),
    Column("last_run", String(64)),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
    Index("schedules_due", "enabled", "next_at"),
)

tasks = _table(  # the durable queue: one row a step of a pipeline run
    "tasks",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("run", String(64), nullable=False),  # the pipeline run
    Column("step", String(250), nullable=False),
    Column("state", String(20), nullable=False),  # waiting | ready | leased | done | failed | skipped | cancelled
    Column("call", String(300), nullable=False),  # module:function
    Column("code", String(300)),  # code asset, null for everloop's own steps
    Column("params", JSON, nullable=False, default=dict),
    Column("after", JSON, nullable=False, default=list),
    Column("result", JSON),
    Column("error", Text, nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("owner", String(100)),
    Column("lease_until", Float),
    Column("key", String(64), nullable=False),  # cache key of call, code, params and inputs' digests
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("by", String(250), nullable=False),
    Index("tasks_due", "state", "lease_until"),
    Index("tasks_of", "project", "run", "step", unique=True),
)

monitors = _table(
    "monitors",
    Column("project", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("endpoint", String(250), nullable=False),
    Column("spec", JSON, nullable=False),  # {"checks": [...], "window_days", "every", "on_fail": {"pipeline", "params"}, "state": {...}}
    Column("enabled", Boolean, nullable=False, default=True),
    Column("state", JSON, nullable=False, default=dict),  # calibration, last window, last alarm
    Column("next_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
)

alerts = _table(
    "alerts",
    Column("id", String(32), primary_key=True),
    Column("project", String(250), nullable=False),
    Column("monitor", String(250), nullable=False),
    Column("at", Float, nullable=False),
    Column("event_at", Float, nullable=False),
    Column("what", Text, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("run", String(64)),  # the pipeline run it started
    Column("state", String(20), nullable=False, default="open"),  # open | handled
    Index("alerts_of", "project", "at"),
)

audit = _table(  # tamper-evident: each row's hash covers the one before it
    "audit",
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project", String(250), nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String(250), nullable=False),
    Column("action", String(100), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_of", "project", "seq"),
    Index("audit_subject", "project", "subject", "seq"),
)

documents = _table(  # small named JSON documents of rooms that need no table of their own (saved views, suites' notes, settings)
    "documents",
    Column("project", String(250), primary_key=True),
    Column("kind", String(50), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("body", JSON, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(250), nullable=False),
)

queues = _table(  # annotation queues: what people label, by which rubric
    "queues",
    Column("project", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("spec", JSON, nullable=False),  # see assets/queues.py
    Column("created_at", Float, nullable=False),
    Column("created_by", String(250), nullable=False),
    Column("closed_at", Float),
)

queue_items = _table(
    "queue_items",
    Column("project", String(250), primary_key=True),
    Column("queue", String(250), primary_key=True),
    Column("item", String(250), primary_key=True),  # a row's number, a document's or trace's id
    Column("place", Integer, nullable=False),  # the lower, the sooner it is shown
    Column("why", Float),  # the figure that gave it its place
    Column("shown", JSON, nullable=False),  # what annotators see
    Column("assigned", JSON, nullable=False),  # annotators; [] is anybody
    Column("labelled", Integer, nullable=False, default=0),  # how many have labelled it
    Column("contested", Boolean, nullable=False, default=False),  # and did not agree
    Index("queue_items_next", "project", "queue", "labelled", "place"),
)

queue_claims = _table(  # what an annotator looks at now, and until when it is kept from others
    "queue_claims",
    Column("project", String(250), primary_key=True),
    Column("queue", String(250), primary_key=True),
    Column("annotator", String(250), primary_key=True),
    Column("item", String(250), nullable=False),
    Column("until", Float, nullable=False),
)

queue_labels = _table(
    "queue_labels",
    Column("project", String(250), primary_key=True),
    Column("queue", String(250), primary_key=True),
    Column("item", String(250), primary_key=True),
    Column("annotator", String(250), primary_key=True),
    Column("answers", JSON, nullable=False),  # by question of the rubric
    Column("comment", Text, nullable=False, default=""),
    Column("skipped", Boolean, nullable=False, default=False),
    Column("at", Float, nullable=False),
)
