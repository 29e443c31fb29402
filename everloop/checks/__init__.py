"""One file is one family of checks; the same check is guardrail, gate and monitor.

`checks.get("pii")` is a frozen dataclass with `name`, `stages` (of guardrail, gate, monitor) and one method: `__call__(subject) -> Score`
for an Utterance or Batch (guardrail), Results (gate) or a Window (monitor). A third party adds one by an entry point `check.NAME`.
"""

from __future__ import annotations

from typing import Any

from everloop.core.registry import Registry

checks: Registry[Any] = Registry("check", "everloop.checks")
