"""Texts that are no UTF-8 in spans."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from everloop.client.tracing import LiveSpan, Sender


@pytest.mark.parametrize("field", ["name", "error", "outputs"])
def test_a_text_that_is_no_utf8_does_not_raise_in_the_traced_program(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_STATE", str(tmp_path))
    sender = Sender(SimpleNamespace(url="http://127.0.0.1:9", headers={}))
    monkeypatch.setattr(sender, "_loop", lambda: None)
    span = LiveSpan("look", "CHAIN", "a" * 32, None, {})
    setattr(span, field, "file-\udcff.txt")
    sender.add(span)
    [spool] = (tmp_path / "runs").glob("*.spool")
    assert b"file-?.txt" in spool.read_bytes()
