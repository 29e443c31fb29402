"""One file is one family of checks; the same check is guardrail, gate and monitor."""
