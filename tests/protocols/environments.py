"""Foreign clients that cannot share the tests' environment get one of their own, made once beside it; programs of `programs/` run in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


def environment(packages: Sequence[str]) -> Path:
    """The Python of an environment with `packages`; the test is skipped, with what the installer said, where it cannot be made."""
    import uv

    folder = Path(sys.prefix) / "clients" / hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    folder.parent.mkdir(exist_ok=True)
    python, ready = folder / "bin" / "python", folder / ".ready"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            for command in (["venv", "--clear", "--quiet", str(folder)], ["pip", "install", "--quiet", "--python", str(python), *packages]):
                made = subprocess.run([uv.find_uv_bin(), *command], capture_output=True, text=True, timeout=600)
                if made.returncode:
                    pytest.skip(f"the clients could not be installed: {made.stderr.strip()[-300:]}")
            ready.touch()
    return python


def run_program(python: Path, name: str, *arguments: str) -> None:
    """Run a program with nothing of everloop on its path; AssertionError with what it said where it fails."""
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
    done = subprocess.run([str(python), str(PROGRAMS / name), *arguments], capture_output=True, text=True, env=clean, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
