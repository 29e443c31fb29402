"""`everloop reproduce run:ID`: bring a run's code and data to a folder of its own, and run it again beside what it said then.

Code is the commit, its uncommitted changes and the untracked program, as they were kept with the run (environment.py), or the packaged code version that the run
names. Data is every dataset version that the run read, as lineage has it. Nothing outside the folder is touched.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from everloop.client.runs import TAGS_VARIABLE
from everloop.core.errors import BadInput, Conflict

TAG = "everloop.reproduces"
"""The tag by which a run that was made again names the first one."""
TOLERANCE = 1e-6
"""Relative difference up to which two metrics count as the same."""
PATCH, UNTRACKED = "code/dirty.patch", "code/untracked/"


@dataclass
class Reproduction:
    """A folder with what a run was made from. `said` tells what was done, in sentences; `command` is how to run it, [] where that is not known."""

    run: dict[str, Any]
    folder: Path
    said: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    work: Path = Path()
    data: dict[str, str] = field(default_factory=dict)


def prepare(client: Any, id: str, into: str | os.PathLike[str] | None = None) -> Reproduction:
    """Bring code and data. BadInput where the run kept no code or its commit is nowhere to be found, Conflict where the folder is not empty."""
    run = client.runs.get(id.removeprefix("run:"))
    folder = Path(into or f"reproduce-{run['id'][:8]}").absolute()
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"The folder {folder} is not empty.", "Choose another with --into DIR.")
    made = Reproduction(run, folder)
    paths = {one["path"] for one in client.runs.artifacts(run["id"], "code")}
    code = run["code"] or {}
    if code.get("asset"):
        _packaged(client, made, code["asset"])
    elif code.get("commit"):
        _checked_out(made, code)
        if PATCH in paths:
            _patched(client, made)
        elif code.get("dirty"):
            made.said.append("the code had uncommitted changes that were not kept (too large, or logged by a client that keeps none)")
    elif not any(path.startswith(UNTRACKED) for path in paths):
        raise BadInput(
            f"Run {run['id']} kept no code: it ran outside git, and not by everloop's own client.",
            "Runs started with el.run() or a pipeline keep it.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in paths if path.startswith(UNTRACKED)):
        _write(client, made, path)
    _data(client, made)
    _packages(made)
    _command(made, code)
    return made


def again(client: Any, made: Reproduction, env: bool = False, seconds: float = 86_400.0) -> dict[str, Any]:
    """Run the command in its folder, and compare: {"run", "returncode", "metrics": [{"key", "then", "now", "same"}], "same"}.

    `env`: in a new environment with the packages of then. BadInput where the command is not known or hid a secret, or logged no run.
    """
    if not made.command:
        raise BadInput(f"How run {made.run['id']} was started is not known.", f"Run it by hand in {made.folder}.")
    if "***" in " ".join(made.command):
        raise BadInput("The command held a secret that was not kept.", f"Run it by hand in {made.work}: {' '.join(made.command)}")
    python = _environment(made) if env else sys.executable
    http = client._http
    more = {"EVERLOOP_URL": http.url, "MLFLOW_TRACKING_URI": http.url, TAGS_VARIABLE: json.dumps({TAG: made.run["id"]})}
    if http.key:
        more |= {"EVERLOOP_API_KEY": http.key, "MLFLOW_TRACKING_TOKEN": http.key}
    seeds = (made.run["environment"] or {}).get("seeds") or {}
    if "PYTHONHASHSEED" in seeds:
        more["PYTHONHASHSEED"] = str(seeds["PYTHONHASHSEED"])
    done = subprocess.run([python, *made.command], cwd=made.work, env={**os.environ, **more}, timeout=seconds)
    found = client.runs.search(f"tags.`{TAG}` = '{made.run['id']}'", limit=1)["items"]
    if not found:
        raise BadInput(
            f"The command ended with {done.returncode} and started no run with everloop's client.",
            "A script that logs by MLflow's client is to be compared by hand, in the run table.",
        )
    rows = compare(made.run["metrics"], found[0]["metrics"])
    same = all(row["same"] for row in rows) and done.returncode == 0
    return {"run": found[0]["id"], "returncode": done.returncode, "metrics": rows, "same": same}


def compare(then: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics side by side, those of the machine's load left out: [{"key", "then", "now", "same"}]; None where one has it not."""
    rows = []
    for key in sorted(key for key in {*then, *now} if not key.startswith("system/")):
        one, other = then.get(key), now.get(key)
        same = one is not None and other is not None and (str(one) == str(other) or math.isclose(float(one), float(other), rel_tol=TOLERANCE))
        rows.append({"key": key, "then": one, "now": other, "same": same})
    return rows


def _checked_out(made: Reproduction, code: dict[str, Any]) -> None:
    commit = str(code["commit"])
    tried = []
    for source in (code.get("root"), code.get("repository")):
        if not source or str(source).startswith("-"):
            continue
        tried.append(source)
        if _git(None, "clone", "-q", "--no-checkout", str(source), str(made.folder)) == "" and _git(made.folder, "checkout", "-q", commit) == "":
            made.said.append(f"commit {commit[:12]} of {source}")
            return
        shutil.rmtree(made.folder, ignore_errors=True)
    raise BadInput(
        f"Commit {commit[:12]} is not to be found in {' or '.join(tried) or 'any repository that the run names'}.",
        "Clone the repository to where the run was, or fetch the branch.",
    )


def _patched(client: Any, made: Reproduction) -> None:
    patch = client.runs.get_artifact(made.run["id"], PATCH)
    done = subprocess.run(["git", "-C", str(made.folder), "apply", "--binary", "-"], input=patch, capture_output=True)
    if done.returncode:
        raise BadInput(f"The run's uncommitted changes do not apply: {done.stderr.decode(errors='replace')[-300:]}")
    made.said.append(f"its uncommitted changes ({len(patch)} bytes)")


def _packaged(client: Any, made: Reproduction, ref: str) -> None:
    for file in client.assets.get(ref)["manifest"]["files"]:
        target = _inside(made.folder, file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(client.assets.get_object(file["digest"]))
    made.said.append(f"the packaged code {ref}")


def _write(client: Any, made: Reproduction, path: str) -> None:
    target = _inside(made.folder, path.removeprefix(UNTRACKED))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(client.runs.get_artifact(made.run["id"], path))
    made.said.append(f"the program {path.removeprefix(UNTRACKED)}, which git did not have")


def _inside(folder: Path, path: str) -> Path:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise BadInput(f"{path!r} is not a path inside a folder.")
    return folder / path


def _data(client: Any, made: Reproduction) -> None:
    for node in client.why(f"run:{made.run['id']}")["nodes"]:
        ref = str(node["ref"])
        if ref.startswith("dataset:"):
            name = ref.removeprefix("dataset:")
            where = made.folder / "_data" / name.replace("@", "-")
            where.parent.mkdir(parents=True, exist_ok=True)
            made.data[ref] = str(client.data.checkout(name, where)["path"])
            made.said.append(f"{ref} in {made.data[ref]}")


def _packages(made: Reproduction) -> None:
    packages = (made.run["environment"] or {}).get("packages") or {}
    if packages:
        (made.folder / "_requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))


def _command(made: Reproduction, code: dict[str, Any]) -> None:
    words, root = [str(word) for word in code.get("argv") or []], code.get("root")
    if not words:
        return
    program = Path(words[0]) if Path(words[0]).is_absolute() or not root else Path(root) / str(code.get("folder", ".")) / words[0]
    place = os.path.relpath(os.path.realpath(program), os.path.realpath(root)) if root else program.name
    if place.startswith(".."):
        place = program.name
    made.command = [str(made.folder / place), *words[1:]]
    made.work = made.folder / str(code["folder"]) if root and not str(code.get("folder", ".")).startswith("..") else made.folder


def _environment(made: Reproduction) -> str:
    """A new environment with the run's packages; its Python."""
    place = made.folder / "_env"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    done = subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(made.folder / "_requirements.txt")], capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"The run's packages cannot be installed: {done.stderr.strip()[-400:]}", "Run without --env, in an environment of your own.")
    return python


def _git(folder: Path | None, *words: str) -> str:
    """What git said where it failed; "" where it did not."""
    done = subprocess.run(["git", *(["-C", str(folder)] if folder else []), *words], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip() or "git failed"
