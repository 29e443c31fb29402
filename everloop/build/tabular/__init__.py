"""The tabular pipeline: a labelled table becomes a checked, calibrated, explained model, its release, and a decision whether it goes live.

    validate -> split -> train -> release -> gate

Params of the pipeline:
    dataset   a dataset reference with a target role (or a step before that answers {"dataset": ref}, see build/ingest)
    name      of model, suite and release
    order     auto | time | rows | hash: how rows are divided (see `splitting.split`); auto says which it took
    holdout   share of the rows that the suite keeps (0.25)
    leave_out columns that are no features; `keep`: columns that stay features although validation objects
    threshold binary only: a number, "balanced" (default), "f1", or {"false_positive": 1, "false_negative": 5} (costs)
    gate      {"requirements", "confidence", "approval", "expires_days"}: declared where no gate stands yet, in place of the default for the task
    promote   False: the gate is evaluated and nothing moves
"""

from __future__ import annotations

from typing import Any

from everloop.build.tabular.gating import gate, release
from everloop.build.tabular.splitting import split
from everloop.build.tabular.training import train
from everloop.build.tabular.validation import validate

PIPELINE: dict[str, Any] = {
    "steps": [
        {"name": "validate", "call": "everloop.build.tabular:validate", "after": []},
        {"name": "split", "call": "everloop.build.tabular:split", "after": ["validate"]},
        {"name": "train", "call": "everloop.build.tabular:train", "after": ["validate", "split"]},
        {"name": "release", "call": "everloop.build.tabular:release", "after": ["train"]},
        {"name": "gate", "call": "everloop.build.tabular:gate", "after": ["split", "train", "release"]},
    ],
    "params": {},
}
"""The pipeline's spec: `client.pipelines.put("credit", tabular.PIPELINE)`."""

__all__ = ["PIPELINE", "gate", "release", "split", "train", "validate"]
