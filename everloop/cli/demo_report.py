"""What a demo did, stage by stage: shown while it happens, summed up on one screen, and written as JSON.

A case (credit, tutor) is a function `run(client, report, options)`. Each of its steps is a stage:

    with report.stage("credit", "train") as s:
        s.refs["model"] = "model:credit@1"
        s.figure("auc", 0.79, interval=(0.76, 0.82), n=750, verdict="pass")
        s.say("a gradient boosting, 9 features")

A stage that raises is written down with ok false and its error, and the exception goes on: the case ends there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop.core.settings import DEFAULT_HOME

WIDTH = 100
"""Columns of the last screen."""


@dataclass(frozen=True)
class Options:
    """What the caller of the demo asked for.

    data, target, time, positive, docs: one's own table or documents (None: the demo's own). yes: what needs a person's approval gets it.
    ask: nobody has said yes yet, and someone sits at the terminal who can be asked. seed: of the generators. per_week: generated applications
    a week. require: the gate's rules for one's own table (none: the defaults for its task). home: the server's, for files that a case makes
    (below `home/demo`).
    """

    data: Path | None = None
    target: str | None = None
    time: str | None = None
    positive: str | None = None
    docs: Path | None = None
    yes: bool = False
    ask: bool = False
    seed: int = 7
    home: Path = Path(DEFAULT_HOME)
    per_week: int = 500
    require: tuple[str, ...] = ()


@dataclass
class Stage:
    """One step of a case. `refs` are references and ids made, `figures` what gate and monitor saw, by name."""

    case: str
    name: str
    refs: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    ok: bool = False
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    run: str = ""
    """The pipeline run that the stage waits for, so that Ctrl-C can cancel it."""
    _show: Any = field(default=None, repr=False)

    def say(self, line: str) -> None:
        """One line for the person who watches (kept in the JSON too)."""
        self.lines.append(line)
        if self._show is not None:
            self._show.line(line)

    def doing(self, what: str) -> None:
        """What goes on right now, beside the stage's name; shown on a terminal only, and not kept."""
        if self._show is not None:
            self._show.doing(what)

    def wait(self, client: Any, run: str) -> dict[str, Any]:
        """Wait for a pipeline run, its steps shown; answers its state (EverloopError if it failed)."""
        self.run = run
        state = client.pipelines.wait(run, progress=lambda step, now: self.doing(f"{step} {now}"))
        self.run = ""
        self.doing("")
        return dict(state)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The spinner stands aside while a person is asked something."""
        if self._show is not None:
            self._show.pause()
        try:
            yield
        finally:
            if self._show is not None:
                self._show.resume()

    def figure(
        self, name: str, value: Any, *, interval: Iterable[float] | None = None, n: int | None = None, verdict: str | None = None, **more: Any
    ) -> None:
        """A figure that a gate or monitor saw: value, interval (low, high), number of cases behind it, verdict."""
        self.figures[name] = {"value": value, "interval": list(interval) if interval is not None else None, "n": n, "verdict": verdict, **more}

    def scores(self, scores: Iterable[Mapping[str, Any]], prefix: str = "") -> None:
        """Scores as gates and monitors answer them, each as a figure."""
        for score in scores:
            seen = {key: score.get(key) for key in ("interval", "n", "verdict")}
            self.figure(f"{prefix}{score['name']}", score.get("value"), **seen)

    def to_json(self) -> dict[str, Any]:
        """The stage as it stands in the JSON file; figures as a list of {name, value, interval, n, verdict}."""
        figures = [{"name": name, **(f if isinstance(f, dict) else {"value": f, "interval": None, "n": None})} for name, f in self.figures.items()]
        body = {"name": self.name, "ok": self.ok, "seconds": round(self.seconds, 3), "refs": self.refs, "figures": figures, "said": self.lines}
        if not self.ok:
            body["error"] = f"{self.error}  {self.hint}".strip()
        return body


@dataclass
class Outcome:
    """What the last screen tells of a case: a title, lines, links (label: path below the server's URL) and next commands;
    `whole` False where the loop ended early for a good reason, such as a gate's refusal."""

    title: str
    lines: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    next: list[str] = field(default_factory=list)
    whole: bool = True


class Report:
    """Stages of all cases, shown as they happen. `out` is where lines go; `rich` decides on colours and a spinner (None: if out is a terminal); `own`: the data are the user's."""

    def __init__(self, out: Any = None, rich: bool | None = None, own: bool = False) -> None:
        self.own = own
        self.stages: list[Stage] = []
        self.outcomes: dict[str, Outcome] = {}
        self.started = time.time()
        self._begun = time.monotonic()
        self.show = _Show(out or sys.stdout, rich)

    @contextmanager
    def stage(self, case: str, name: str) -> Iterator[Stage]:
        """A step of a case, timed; what it raises is written down and raised again."""
        stage = Stage(case, name, _show=self.show)
        self.stages.append(stage)
        self.show.begin(stage)
        begun = time.monotonic()
        try:
            yield stage
            stage.ok = True
        except KeyboardInterrupt:
            stage.error = "Stopped by Ctrl-C."
            raise
        except BaseException as error:
            stage.error = str(getattr(error, "what", None) or f"{type(error).__name__}: {error}")
            stage.hint = str(getattr(error, "hint", ""))
            raise
        finally:
            stage.seconds = time.monotonic() - begun
            self.show.end(stage)

    def tell(
        self, case: str, title: str, lines: Iterable[str] = (), links: Mapping[str, str] | None = None, next: Iterable[str] = (), whole: bool = True
    ) -> None:
        """What the last screen says of a case (see Outcome)."""
        self.outcomes[case] = Outcome(title, list(lines), dict(links or {}), list(next), whole)

    @property
    def ok(self) -> bool:
        """Whether every stage went well (and there was one)."""
        return bool(self.stages) and all(stage.ok for stage in self.stages)

    def cases(self) -> list[str]:
        """Names of the cases that ran, in order."""
        return list(dict.fromkeys(stage.case for stage in self.stages))

    def to_json(self, **more: Any) -> dict[str, Any]:
        """All that happened: {"ok", "seconds", "cases": {name: {"ok", "seconds", "title", "lines", "links", "stages": [...]}}}, and `more`."""
        cases: dict[str, Any] = {}
        for name in self.cases():
            mine = [stage for stage in self.stages if stage.case == name]
            told = self.outcomes.get(name) or Outcome("")
            cases[name] = {
                "ok": all(stage.ok for stage in mine),
                "seconds": round(sum(stage.seconds for stage in mine), 3),
                "title": told.title,
                "lines": told.lines,
                "links": told.links,
                "stages": [stage.to_json() for stage in mine],
            }
        return {"ok": self.ok, "seconds": round(time.monotonic() - self._begun, 3), "started_at": self.started, **more, "cases": cases}

    def write_json(self, path: Path, **more: Any) -> None:
        """Write `to_json` to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(**more), indent=2, default=str) + "\n", encoding="utf-8")


def is_ref(value: Any) -> bool:
    """Whether it is a reference as people read it, `kind:name@version`."""
    from everloop.core.refs import KINDS

    return isinstance(value, str) and "@" in value and value.partition(":")[0] in KINDS


class _Show:
    """Lines as stages go: a spinner and colours on a terminal, plain lines elsewhere (the same words)."""

    def __init__(self, out: Any, rich: bool | None) -> None:
        from rich.console import Console

        terminal = bool(getattr(out, "isatty", lambda: False)()) if rich is None else rich
        self.terminal = terminal
        self.console = Console(file=out, force_terminal=terminal or None, highlight=False, soft_wrap=True, width=None if terminal else 200)
        self._status: Any = None
        self._case = ""
        self._name = ""

    def begin(self, stage: Stage) -> None:
        """A stage begins."""
        self._name = stage.name
        if stage.case != self._case:
            self._case = stage.case
            self.text(f"\n{stage.case}", "bold")
        self.text(f"  {stage.name}", "bold" if self.terminal else "")
        if self.terminal:
            self._status = self.console.status(stage.name, spinner="dots")
            self._status.start()

    def pause(self) -> None:
        """Stop the spinner for a moment."""
        if self._status is not None:
            self._status.stop()

    def resume(self) -> None:
        """Let it turn again."""
        if self._status is not None:
            self._status.start()

    def doing(self, what: str) -> None:
        """Change the words beside the spinner."""
        if self._status is not None:
            self._status.update(f"{self._name}: {what}" if what else self._name)

    def line(self, text: str) -> None:
        """A line below the stage that runs."""
        self.text(f"      {text}", "dim" if self.terminal else "")

    def end(self, stage: Stage) -> None:
        """A stage ended, well or not."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if stage.ok:
            made = ", ".join(dict.fromkeys(str(v) for v in stage.refs.values() if is_ref(v)))
            self.text(f"      ok, {stage.seconds:.1f} s{': ' + made if made else ''}", "green" if self.terminal else "")
        else:
            self.text(f"      FAILED after {stage.seconds:.1f} s: {stage.error}", "bold red" if self.terminal else "")
            if stage.hint:
                self.text(f"      {stage.hint}")

    def text(self, text: str, style: str = "") -> None:
        """A line as it is, no markup read from it."""
        self.console.print(text, style=style or None, markup=False)
