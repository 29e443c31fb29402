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


def seed_of_round(client: Any, dataset: str, release: str, seed: int, s: Stage) -> int:
    """The seed of the next round: `seed` at first, then one more each time. Last round's champion goes out of service, and the stage says so:
    it has learnt from the changed world, and each round begins before the change."""
    before = rounds(client, dataset)
    if not before:
        return seed
    s.say(f"round {before + 1} on this home: other loans (seed {seed + before}), versions count on, the pipeline and its environment are reused")
    try:
        held = client.assets.get(f"release:{release}@champion")
        client.assets.remove_alias("release", release, "champion")
        s.say(f"{held['ref']} goes out of service: it has seen the changed world, and this round begins before the change")
    except NotFound:
        s.say(f"nothing of {release} is live")
    return seed + before


def mark(client: Any, ref: str) -> None:
    """This round's history is `ref`."""
    client.assets.move_alias(ref, ALIAS, why="a round of the demo begins with this history")
