"""The example goes round the whole loop against a real server with a real worker process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from everloop.client import connect
from tests.conftest import running_server

ROOT = Path(__file__).parents[2]


def test_the_credit_loop_closes_itself(tmp_path: Path) -> None:
    with running_server(tmp_path, workers=1) as url:
        client = connect(url, start=False)
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "loop.py")], env={**os.environ, "EVERLOOP_URL": url}, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        champion, moves = client.assets.get("release:credit@champion"), client.assets.alias_history("release", "credit", "champion")
        assert champion["version"] == 2 and [m["to_version"] for m in moves] == [2, 1]
        decision = client.gates.decision(moves[0]["decision"])
        assert (decision["verdict"], decision["approval"], decision["against"]) == ("pass", "approved", "release:credit@1")
        alarm = next(a for a in client.monitors.alerts("credit") if a["run"])
        assert "got worse" in alarm["what"]
        impact = client.impact("dataset:loans@1")
        assert "release:credit@1" in impact["releases"] and impact["answers"]["release:credit@1"] == 12  # calls: one a week, weeks 12 to 23
        assert impact["predictions"]["release:credit@1"] > 12
        assert client._http.get("/api/v1/audit/verify")["ok"]
