"""P13: data versions beside DVC's: 10,000 small files, a large file and a large table, each with one percent changed.

    python -m benchmarks.data --dvc /path/to/dvc --file-mb 1024 --table-mb 256

Commands are timed from outside, start of Python included, ours against a server that runs already. New bytes are what the store's folder grew by.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import running_server

FILES, SIZE = 10_000, 4_096


def main() -> None:
    """Measure and print one table in Markdown."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--dvc", help="DVC's program; left out, only ours is measured")
    ask.add_argument("--file-mb", type=int, default=1024)
    ask.add_argument("--table-mb", type=int, default=256)
    ask.add_argument("--rounds", type=int, default=3)
    told = ask.parse_args()
    base = Path(tempfile.mkdtemp(prefix="everloop-data-"))
    try:
        with running_server(base / "home") as url:
            os.environ |= {"EVERLOOP_URL": url, "EVERLOOP_CACHE": str(base / "cache"), "DVC_NO_ANALYTICS": "1"}
            print(f"load before: {os.getloadavg()[0]:.1f}")
            small(base, told.dvc, told.rounds)
            for kind, mb in (("file", told.file_mb), ("table", told.table_mb)):
                if mb:
                    large(base, kind, mb, told.dvc)
            print(f"load after: {os.getloadavg()[0]:.1f}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def small(base: Path, dvc: str | None, rounds: int) -> None:
    """Times for many small files: add, add again with one percent changed, checkout; the median of so many rounds."""
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        repo = base / f"small{turn}"
        folder = repo / "d"
        folder.mkdir(parents=True)
        for i in range(FILES):
            (folder / f"f{i:05}").write_bytes(os.urandom(SIZE))
        if dvc:
            start_dvc(repo, dvc)
        ours = [sys.executable, "-m", "everloop", "data"]
        for step in ("add", "re-add", "checkout"):
            if step == "re-add":
                for i in range(0, FILES, 100):
                    (folder / f"f{i:05}").write_bytes(os.urandom(SIZE))
                time.sleep(0.2)
            if dvc:
                if step == "checkout":
                    shutil.rmtree(folder)
                theirs = [dvc, "checkout", "-q", "d.dvc"] if step == "checkout" else [dvc, "add", "-q", "d"]
                found.setdefault(f"{step} dvc", []).append(timed(theirs, repo))
            command = [*ours, "checkout", f"small{turn}", str(repo / "out")] if step == "checkout" else [*ours, "add", f"small{turn}", str(folder)]
            found.setdefault(f"{step} everloop", []).append(timed(command, base))
    print(f"\n| {FILES:,} files of {SIZE:,} bytes, s (median of {rounds}) | everloop | DVC | times |\n|---|---|---|---|")
    for step in ("add", "re-add", "checkout"):
        mine, theirs = (sorted(found.get(f"{step} {who}", [])) for who in ("everloop", "dvc"))
        a, b = mine[len(mine) // 2], theirs[len(theirs) // 2] if theirs else float("nan")
        print(f"| {step} | {a:.2f} | {b:.2f} | {b / a:.1f} |")


def large(base: Path, kind: str, mb: int, dvc: str | None) -> None:
    """New bytes for one percent changed in one place of a large file, or in neighbouring and in scattered rows of a table."""
    repo = base / kind
    repo.mkdir()
    if dvc:
        start_dvc(repo, dvc)
    path = repo / ("big.bin" if kind == "file" else "big.parquet")
    print(f"\n| {kind}, {mb} MB | everloop s | everloop new bytes | DVC s | DVC new bytes |\n|---|---|---|---|---|")
    for change in ("new", "1 % in one place", *(["1 % of rows, scattered"] if kind == "table" else [])):
        make_file(path, mb, change) if kind == "file" else make_table(path, mb, change)
        size = path.stat().st_size
        before = bytes_of(base / "home" / "objects"), bytes_of(repo / ".dvc" / "cache")
        mine = timed([sys.executable, "-m", "everloop", "data", "add", kind, str(path)], base)
        theirs = timed([dvc, "add", "-q", path.name], repo) if dvc else float("nan")
        grew = bytes_of(base / "home" / "objects") - before[0], bytes_of(repo / ".dvc" / "cache") - before[1]
        shares = [f"{n / 1e6:,.1f} MB ({n / size:.1%})" for n in grew]
        print(f"| {change} ({size / 1e6:,.0f} MB) | {mine:.1f} | {shares[0]} | {theirs:.1f} | {shares[1]} |")


def make_file(path: Path, mb: int, change: str) -> None:
    """A random file, or one percent of it in one place made anew."""
    if change == "new":
        with path.open("wb") as file:
            for _ in range(mb):
                file.write(os.urandom(1_000_000))
        return
    with path.open("r+b") as file:
        file.seek(mb * 400_000)
        file.write(os.urandom(mb * 10_000))


def make_table(path: Path, mb: int, change: str) -> None:
    """A table of six columns (40 bytes a row before compression), or one percent of its rows changed."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    n = mb * 1_000_000 // 40
    columns = {"id": np.arange(n), **{f"x{i}": rng.normal(size=n) for i in range(3)}, "k": rng.integers(0, 1_000_000, n)}
    columns["c"] = rng.integers(0, 50, n)
    if change != "new":
        rows = np.arange(n // 2, n // 2 + n // 100) if "place" in change else np.random.default_rng(2).choice(n, n // 100, replace=False)
        columns["x1"][rows] = 0.5
        columns["k"][rows] = -1
    pq.write_table(pa.table(columns), path)


def timed(command: list[str], folder: Path) -> float:
    """Seconds that a command takes; it must succeed."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return time.perf_counter() - begin


def start_dvc(repo: Path, dvc: str) -> None:
    """A git repository with DVC in it."""
    subprocess.run(["git", "init", "-q", "."], cwd=repo, check=True)
    subprocess.run([dvc, "init", "-q"], cwd=repo, check=True)


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0


if __name__ == "__main__":
    main()
