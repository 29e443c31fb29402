"""The demo's weekly loads: a folder that fills week by week, and a schedule whose pipeline takes what is new as the next dataset version."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from everloop.cli.demo_feed import Feed, Week
from everloop.cli.demo_report import Stage


class Loader:
    """Files of rows whose outcome became known, one a week, in a folder of this round; the schedule's pipeline runs in a worker."""

    def __init__(self, client: Any, feed: Feed, home: Path) -> None:
        self.client, self.feed = client, feed
        base = home.resolve() / "demo"
        self.folder = next(folder for n in count(1) if not (folder := base / f"{feed.dataset}-{n}").exists())
        self.folder.mkdir(parents=True)
        self.pipeline, self.schedule = f"{feed.dataset}-load", f"{feed.dataset}-weekly"
        self.refs: list[str] = []
        self._run = ""
        self._at = feed.begins

    def first(self, s: Stage) -> dict[str, Any]:
        """The history as a file of the folder, loaded by a first run; and the schedule. Answers the dataset version."""
        from everloop.build import ingest

        feed = self.feed
        self._write("history", float("-inf"), feed.begins)
        params = {**feed.roles, "dataset": feed.dataset, "folder": str(self.folder), "keep_rows": feed.keep}
        self.client.pipelines.put(self.pipeline, {**ingest.PIPELINE, "params": params})
        self._run = self.client.pipelines.run(self.pipeline, {"mode": "all", "keep_rows": feed.first})["id"]
        s.refs["load"] = self._run
        self.finish(s)
        self.client.pipelines.schedule(self.schedule, self.pipeline, "@weekly")
        s.refs["dataset"] = self.refs[-1]
        s.say(f"schedule {self.schedule} (@weekly): pipeline {self.pipeline} takes new files of {self.folder}, and keeps the newest {feed.keep} rows")
        return dict(self.client.data.get(self.refs[-1]))

    def begin(self, week: Week, s: Stage) -> None:
        """The week's file is there and its scheduled load starts; it runs while the week's traffic does."""
        self._write(f"week-{week.number:03d}", self._at, week.until)
        self._at = week.until
        s.run = self._run = self.client.pipelines.run_schedule(self.schedule, week.until)["id"]

    def finish(self, s: Stage) -> None:
        """Wait for the load under way."""
        state = s.wait(self.client, self._run)
        self.refs.append(str(state["tasks"][0]["result"]["dataset"]))

    def told(self) -> str:
        """The weekly loads in one line."""
        return f"weekly loads made {self.refs[0]} to {self.refs[-1].rpartition('@')[2]}"

    def _write(self, name: str, after: float, until: float) -> None:
        rows = self.feed.became_known(after, until)
        if len(rows):
            part = self.folder / f".{name}.part"
            rows.to_parquet(part, index=False)
            part.rename(self.folder / f"{name}.parquet")
