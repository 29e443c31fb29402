"""Rounds of the demo on one home: each has data of its own, so nothing is reused silently and versions go on counting."""

from __future__ import annotations

from typing import Any

from everloop.cli.demo_report import Stage
from everloop.core.errors import NotFound

ALIAS = "demo-history"
"""An alias of the demo's dataset that each round moves to its history: its moves are the rounds."""


def rounds(client: Any, dataset: str) -> int:
    """How many rounds this home has seen."""
    try:
        return len(client.assets.alias_history("dataset", dataset, ALIAS))
    except NotFound:
        return 0


def seed_of_round(client: Any, dataset: str, seed: int, s: Stage) -> int:
    """The seed of the next round: `seed` at first, then one more each time, and the stage says so."""
    before = rounds(client, dataset)
    if before:
        s.say(
            f"round {before + 1} on this home: other loans (seed {seed + before}); versions go on from the last round, whose champion still answers"
        )
    return seed + before


def mark(client: Any, ref: str) -> None:
    """This round's history is `ref`."""
    client.assets.move_alias(ref, ALIAS, why="a round of the demo begins with this history")
