"""The step `validate`: what is wrong with a labelled table, where, and what to do about it. Errors stop the pipeline, warnings go along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.build.tabular.leaks import tells_target
from everloop.build.tabular.table import NUMERIC, data_of, feature_kinds, labelled, need_task, targets
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import FINDINGS_SHOWN, TRAIN_CLASS_ROWS_MIN, TRAIN_ROWS_MIN

LEVELS = ("error", "warning", "note")


@dataclass
class Look:
    """A table under validation, and what was found so far."""

    ref: str
    frame: Any
    rows: Any
    manifest: Mapping[str, Any]
    params: Mapping[str, Any]
    findings: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[str, Any]:
        """The dataset's roles."""
        return self.manifest["roles"]  # type: ignore[no-any-return]

    @property
    def task(self) -> Mapping[str, Any]:
        """The dataset's task."""
        return self.manifest["task"]  # type: ignore[no-any-return]

    def say(self, level: str, check: str, where: str, what: str, do: str) -> None:
        """Note a finding."""
        self.findings.append({"level": level, "check": check, "where": where, "what": what, "do": do})

    def drop(self, column: str, why: str) -> bool:
        """Leave a column out of the features, unless the user said to keep it; answers whether it is out."""
        if column in (self.params.get("keep") or ()):
            return False
        self.left_out.setdefault(column, why)
        return True


def validate(step: Any) -> dict[str, Any]:
    """Check the dataset; answers {"dataset": exact reference, "left_out": {column: why}, "findings": [{"level","check","where","what","do"}]}.

    Raises BadInput with the first errors in words if there is any; all findings are kept as the run's findings.json.
    """
    ref, asset = data_of(step)
    roles, task = need_task(asset)
    frame = step.client.data.frame(ref)
    look = Look(ref, frame, labelled(frame, roles["target"], task["task"]), asset["manifest"], step.params)
    look_over(look)
    _against_live(step, look)
    counts = {level: sum(f["level"] == level for f in look.findings) for level in LEVELS}
    step.run.log_metrics({"rows": len(frame), "rows_labelled": len(look.rows), "errors": counts["error"], "warnings": counts["warning"]})
    step.run.log_artifact(json.dumps(look.findings, indent=1, ensure_ascii=False).encode(), "findings.json")
    for one in look.findings:
        step.log(f"{one['level']}: {one['what']} {one['do']}")
    wrong = [f for f in look.findings if f["level"] == "error"]
    if wrong:
        more = f" And {len(wrong) - FINDINGS_SHOWN} more." if len(wrong) > FINDINGS_SHOWN else ""
        raise BadInput(
            f"{ref} cannot be learnt from. " + " ".join(f["what"] for f in wrong[:FINDINGS_SHOWN]) + more,
            " ".join(dict.fromkeys(f["do"] for f in wrong[:FINDINGS_SHOWN])),
            findings=look.findings,
        )
    return {"dataset": ref, "left_out": look.left_out, "findings": look.findings, "rows": len(frame), "labelled": len(look.rows)}


def look_over(look: Look) -> Look:
    """Run all checks of this file over the table."""
    for name in look.params.get("leave_out") or ():
        if name not in look.frame.columns:
            shown = ", ".join(look.frame.columns[:40])
            look.say("error", "leave_out", name, f"The column {name!r} to leave out is not in {look.ref}.", f"Columns: {shown}.")
        look.left_out[name] = "you said so"
    checks: list[Callable[[Look], None]] = [_labels, _classes, _delay, _columns, _duplicates, _contract]
    for check in checks:
        check(look)
    if not any(f["level"] == "error" for f in look.findings):
        tells_target(look)
    if not feature_kinds(look.manifest, look.left_out):
        why = ", ".join(f"{c} ({w})" for c, w in list(look.left_out.items())[:10]) or "there are only the target and columns with a role"
        look.say("error", "features", look.ref, f"No column is left to learn from: {why}.", "Load more columns, or name those to keep in `keep`.")
    return look


def _labels(look: Look) -> None:
    n, target = len(look.rows), look.roles["target"]
    if n < TRAIN_ROWS_MIN:
        what = f"{look.ref} has {n:,} rows with a value in {target!r}; at least {TRAIN_ROWS_MIN} are needed to train and to test."
        look.say("error", "rows", look.ref, what, "Load more rows.")
    elif n < 10 * TRAIN_ROWS_MIN:
        look.say("warning", "rows", look.ref, f"{n:,} labelled rows are few: intervals will be wide.", "Load more rows when you have them.")


def _classes(look: Look) -> None:
    if look.task["task"] == "regression" or len(look.rows) < TRAIN_ROWS_MIN:
        return
    target = look.roles["target"]
    counts = targets(look.rows, target, look.task["task"]).value_counts()
    if len(counts) < 2:
        only = counts.index[0] if len(counts) else "none"
        what = f"The target column {target!r} has one class only in the labelled rows: {only!r}."
        look.say("error", "one_class", target, what, "Load rows of the other class too, or choose another target.")
        return
    rare = counts[counts < TRAIN_CLASS_ROWS_MIN]
    for name, count in rare.items():
        what = f"The class {name!r} of {target!r} has {count} rows of {len(look.rows):,}."
        if len(counts) == 2:
            look.say("error", "rare_class", target, what, f"At least {TRAIN_CLASS_ROWS_MIN} are needed; load more of them.")
        else:
            look.say("warning", "rare_class", target, what, "It can hardly be learnt or tested; load more of them, or join it with another class.")
    share = float(counts.min()) / len(look.rows)
    if not len(rare) and share < 0.02:
        what = f"The class {counts.idxmin()!r} of {target!r} is {share:.1%} of the rows."
        look.say("warning", "imbalance", target, what, "Judge by AUC, precision and recall; accuracy says little here.")


def _delay(look: Look) -> None:
    """Rows without a label: at the newest end they are labels still to come, elsewhere they are gaps."""
    missing = len(look.frame) - len(look.rows)
    if not missing:
        return
    target, time = look.roles["target"], look.roles["time"]
    gone = ~look.frame.index.isin(look.rows.index)
    if time and len(look.rows):
        late = gone & (look.frame[time] > look.rows[time].max())
        if late.sum():
            first = look.frame[time][late].min()
            what = f"{int(late.sum()):,} rows from {first} on have no {target!r} yet: labels come late."
            look.say("note", "label_delay", target, what, "They are left out of this training; the newest labelled rows are the holdout.")
            missing -= int(late.sum())
    if missing:
        what = f"{missing:,} rows have no value in the target column {target!r}."
        look.say("warning", "missing_target", target, what, "They are left out; fill them in if you can.")


def _columns(look: Look) -> None:
    stats, n = look.manifest["stats"], max(1, len(look.frame))
    kinds = feature_kinds(look.manifest, look.left_out)
    for column in look.manifest["schema"]:
        name, kind, found = column["name"], column["type"], stats[column["name"]]
        if kind == "datetime" and name not in (look.roles["time"], look.roles["target"]):
            what = f"Column {name!r} holds dates, and dates are no features as they stand."
            look.say("note", "date", name, what, "Make a number of it (days since ...) if it should count.")
            look.left_out.setdefault(name, "dates are no features")
        if name not in kinds:
            continue
        _column(look, name, kind, found, n)


def _column(look: Look, name: str, kind: str, found: Mapping[str, Any], n: int) -> None:
    out = "It is left out of the features."
    if found["missing"] >= n:
        look.drop(name, "no value in any row")
        look.say("warning", "empty", name, f"Column {name!r} has no value in any row.", out)
    elif found["distinct"] <= 1 and not found["missing"]:
        look.drop(name, "the same value in all rows")
        look.say("warning", "constant", name, f"Column {name!r} has the same value in all rows.", out)
    elif id_like(found, kind, n):
        if look.drop(name, "it names a row"):
            what = f"Column {name!r} names a row: {found['distinct']:,} different values in {n:,} rows."
            look.say("warning", "id_like", name, what, f"{out} Give it the role id, or name it in `keep` if it is a measure.")
    elif kind == "string" and found["distinct"] > 50 and found["distinct"] > 0.3 * (n - found["missing"]):
        if look.drop(name, "free text"):
            what = f"Column {name!r} looks like free text: {found['distinct']:,} different values in {n:,} rows."
            look.say("warning", "free_text", name, what, f"{out} Name it in `keep` if its values recur.")
    elif found["missing"] > 0.6 * n:
        look.say(
            "warning", "mostly_missing", name, f"Column {name!r} is missing in {found['missing'] / n:.0%} of the rows.", "Is that as it should be?"
        )


def id_like(found: Mapping[str, Any], kind: str, n: int) -> bool:
    """Whether a column's statistics are those of a name or running number: (nearly) all different, and text or whole numbers without gaps."""
    there = n - found["missing"]
    if n < 30 or there < 0.9 * n or found["distinct"] < 0.98 * there:
        return False
    if kind == "string":
        return True
    return kind == "integer" and found["max"] - found["min"] < 2.0 * n


def _duplicates(look: Look) -> None:
    id = look.roles["id"]
    if id:
        twice = int(look.frame[id].duplicated().sum())
        if twice:
            what = f"The id column {id!r} repeats in {twice:,} rows."
            look.say("warning", "duplicate_id", id, what, "Keep one row an id, or a row is learnt from and tested on.")
    columns = [c for c in look.frame.columns if c != id]
    same = int(look.frame.duplicated(subset=columns).sum())
    if same:
        what = f"{same:,} of {len(look.frame):,} rows are exact copies of another row."
        level = "warning" if same > 0.01 * len(look.frame) else "note"
        look.say(level, "duplicates", look.ref, what, "Copies stay on one side of a split by hash; drop them if they are mistakes.")


def _contract(look: Look) -> None:
    """A contract given with the run; that of the dataset was checked when it was loaded."""
    from everloop.assets.contracts import check_contract

    contract = look.params.get("contract")
    if not contract:
        return
    import pyarrow as pa

    report = check_contract(pa.Table.from_pandas(look.frame, preserve_index=False), contract)
    for one in report["violations"][:20]:
        where = f"row {one['row']}, column {one['column']}" if one["row"] else f"column {one['column']}"
        look.say("error", "contract", where, f"{where}: {one['why']}.", "Fix the rows, or change the contract if it is wrong.")


def _against_live(step: Any, look: Look) -> None:
    """A warning where the features are others than the live model takes: a column that went missing in a load shows here."""
    try:
        live = step.client.assets.get(f"release:{step.params.get('name') or ''}@champion", "release")
        model = step.client.assets.get(live["manifest"]["pins"]["model"])["manifest"]
    except (NotFound, BadInput, KeyError):
        return
    changes = schema_changes(feature_kinds(look.manifest, look.left_out), model["signature"]["inputs"])
    if changes:
        what = f"The features differ from those of the live {live['ref']}: {'; '.join(changes[:10])}."
        look.say("warning", "schema_change", look.ref, what, "Is the load whole? If so, callers must send the columns as they are now.")


def schema_changes(kinds: Mapping[str, str], inputs: list[Mapping[str, Any]]) -> list[str]:
    """How a table's features differ from what a live model takes, in words."""
    before = {i["name"]: i["type"] for i in inputs}
    told = [f"{name!r} is gone" for name in before if name not in kinds]
    told += [f"{name!r} is new" for name in kinds if name not in before]
    for name in kinds:
        if name in before and (kinds[name] in NUMERIC) != (before[name] in NUMERIC):
            told.append(f"{name!r} was {before[name]} and is {kinds[name]}")
    return told
