"""The page of checks names every check, in the group of the places where it may be used."""

from __future__ import annotations

import re

from everloop.checks import checks
from tests.docs.reading import ROOT

GROUPS = {
    ("guardrail", "gate", "monitor"): "On texts: in policies, gates and monitors",
    ("gate", "monitor"): "In gates and monitors",
    ("gate",): "In gates only",
    ("monitor",): "In monitors only",
}


def test_every_check_has_its_row_where_it_belongs() -> None:
    text = (ROOT / "docs/reference/checks.md").read_text()
    told = {part.split("\n", 1)[0].strip(): set(re.findall(r"^\| (\w+) \| ", part, re.MULTILINE)) - {"check"} for part in text.split("\n## ")[1:]}
    for stages, heading in GROUPS.items():
        mine = {name for name, cls in checks.items() if tuple(cls.stages) == stages}
        assert told[heading] == mine, f"{heading}: {told[heading] ^ mine}"
    assert {tuple(cls.stages) for _, cls in checks.items()} <= set(GROUPS)
