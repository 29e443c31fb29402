"""The command line in this process, speaking to an app in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from everloop.cli import main, screen

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("gates", "list")` answers (exit code, stdout, stderr)."""
    monkeypatch.setattr(screen, "client", lambda start=False, url=None: client)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", *words])
        capsys.readouterr()
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
