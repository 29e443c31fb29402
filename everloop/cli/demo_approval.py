"""A person's approval in the demo: given by --yes, asked for at a terminal, or left open with the command that gives it."""

from __future__ import annotations

import select
import sys
from collections.abc import Mapping
from typing import Any

from everloop.cli.demo_report import Options, Stage

ASK_SECONDS = 60.0
"""How long the demo waits for an answer at the terminal."""


def approved(client: Any, decision: Mapping[str, Any], options: Options, s: Stage) -> bool:
    """Whether the decision was approved (its alias has moved then); if not it waits, and the stage says with which command to approve it."""
    command = f"everloop gates approve {decision['id']}"
    if options.yes or (options.ask and _ask(s, f"{decision['ref']} passed its gate. Approve it")):
        client.gates.approve(decision["id"], "approved in the demo")
        s.say(f"approved by the person who runs the demo (elsewhere: {command})")
        s.refs["approved"] = decision["id"]
        return True
    s.say(f"not approved; it waits. Approve it with: {command}")
    s.refs["waits"] = decision["id"]
    return False


def _ask(s: Stage, question: str) -> bool:
    """Yes at Enter or y; no at anything else, or when nobody answers within ASK_SECONDS."""
    with s.paused():
        print(f"      {question}? [Y/n] (waits {ASK_SECONDS:.0f} s) ", end="", flush=True)
        ready, _, _ = select.select([sys.stdin], [], [], ASK_SECONDS)
        answer = sys.stdin.readline() if ready else None
        if answer is None:
            print("no answer")
    return answer is not None and answer.endswith("\n") and answer.strip().lower() in ("", "y", "yes")
