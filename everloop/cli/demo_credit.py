"""The demo's credit case: data, build, gate, serve, observe, adapt, why; over the SDK's HTTP only.

Weeks are replayed by a clock of the demo's own: predictions carry the week's days, an outcome is sent when the clock reaches the day on
which it became known, and a retraining sees only outcomes known by then. Nothing else is arranged: what monitor and gate say is what they say.
"""

from __future__ import annotations

from typing import Any

from everloop.cli import demo_feed, demo_figures, demo_rounds
from everloop.cli.demo_approval import approved
from everloop.cli.demo_feed import Feed, Week
from everloop.cli.demo_loads import Loader
from everloop.cli.demo_report import Options, Report, Stage
from everloop.core.errors import EverloopError

CASE = "credit"
ALARM_WEEKS = 8
"""The figures "before" are the old champion's from so many weeks before the alarm on (from the shift on, where it is documented)."""
COSTS = {"false_positive": 1, "false_negative": 5}
"""A loan that goes bad costs the lender five times what a good one refused does; the threshold of the generated loans follows from that."""
DAYS = 7
"""Calls a replayed week is sent in, one a day."""


def run(client: Any, report: Report, options: Options) -> None:
    """Go once round the loop with generated loans, or with options.data; stages that do not come to pass are said, not made up."""
    case = _Credit(client, report, options)
    case.data()
    case.build()
    if not case.gate():
        case.tell()
        return
    case.serve()
    case.observe()
    case.adapt()
    case.why()
    case.tell()


class _Credit:
    """One trip: what was made so far, and what happened in which week."""

    def __init__(self, client: Any, report: Report, options: Options) -> None:
        self.client, self.report, self.options = client, report, options
        self.feed: Feed
        self.loader: Loader
        self.history = ""
        self.task: dict[str, Any] = {}
        self.run_id = ""
        self.first = self.champion = ""
        self.decision: dict[str, Any] = {}
        self.sent: list[dict[str, Any]] = []  # predictions: id, release, week, known, label, prediction, probability
        self.told = 0
        self.events: list[str] = []
        self.drift_week: int | None = None
        self.alarm: dict[str, Any] | None = None
        self.position = 0
        self.waiting: str | None = None
        self.recovered: dict[str, Any] = {}
        self.retrained: list[str] = []

    # 1. data

    def data(self) -> None:
        """The history whose outcomes are known becomes a dataset version, with schema, statistics and roles."""
        with self.report.stage(CASE, "data") as s:
            options = self.options
            if options.data is None:
                seed = demo_rounds.seed_of_round(self.client, demo_feed.DATASET, CASE, options.seed, s)
                self.feed = demo_feed.generated(seed, options.per_week)
            else:
                self.feed = demo_feed.from_table(self.client, options.data, str(options.target), options.time, options.positive)
                s.refs["file"] = self.feed.reads[0]
            for note in self.feed.notes:
                s.say(note)
            self.loader = Loader(self.client, self.feed, self.options.home)
            asset = self.loader.first(s)
            demo_rounds.mark(self.client, asset["ref"])
            self.history = asset["ref"]
            manifest = asset["manifest"]
            missing = [c for c, stats in (manifest.get("stats") or {}).items() if stats.get("missing")]
            s.say(f"{manifest['rows']} rows with known outcome, {len(manifest['schema'])} columns ({len(missing)} with missing values)")
            self.task = manifest["task"]
            s.say(f"{self.task['task']}: {self.task['why']}")

    # 2. build

    def build(self) -> None:
        """The tabular pipeline in a worker: validate, split, train, register, release, gate."""
        from everloop.build import tabular

        with self.report.stage(CASE, "build") as s:
            feed = self.feed
            self.client.pipelines.put(feed.name, tabular.PIPELINE)
            self.params = {"dataset": f"dataset:{feed.dataset}", "name": feed.name}
            asked = list(self.options.require)
            if self.options.data is None:
                asked, self.params["threshold"] = demo_figures.rules(feed), COSTS
            elif asked:
                asked = demo_figures.with_comparison(asked, self.task["task"], s.say)
            if asked:
                self.params["gate"] = {"requirements": asked, "approval": "not_first"}
                demo_figures.declare_again(self.client, feed.name, asked)
            run = self.client.pipelines.run(feed.name, {**self.params, "dataset": self.history})["id"]
            s.refs["run"] = run
            made = self._built(run, s)
            s.refs |= {k: v for k, v in made.items() if k != "decision"}
            self.decision = self.client.gates.decision(made["decision"]) if made.get("decision") else {}
            self.first = made["release"]

    def _built(self, run: str, s: Stage) -> dict[str, str]:
        """Wait for a pipeline run; what it made: {"model", "suite", "release", "decision"}, its figures said."""
        state = s.wait(self.client, run)
        results = {task["step"]: task["result"] or {} for task in state["tasks"]}
        seconds = sum((t["ended_at"] or 0) - (t["started_at"] or 0) for t in state["tasks"])
        trained = results.get("train") or {}
        scores = ", ".join(f"{name} {value:.3f}" for name, value in (trained.get("validation") or {}).items())
        s.say(f"pipeline {' -> '.join(t['step'] for t in state['tasks'])} in a worker, {seconds:.1f} s of work")
        s.say(f"{trained.get('chosen')} is kept ({scores} on validation rows), served by {trained.get('engine')}")
        if trained.get("threshold") is not None:
            s.say(f"threshold {trained['threshold']:.3g} ({trained['threshold_how']}); calibration: {trained['calibration'].get('why', '')}")
        for name, value in (trained.get("validation") or {}).items():
            s.figure(f"validation_{name}", value)
        found = {}
        for result in results.values():
            found |= {k: v for k, v in result.items() if k in ("model", "suite", "release", "decision") and v}
        return found

    # 3. gate

    def gate(self) -> bool:
        """What the gate said to the first version; whether something is live."""
        with self.report.stage(CASE, "gate") as s:
            decision = self.decision
            if not decision:
                self.champion = self.first
                s.say(f"{self.champion} is the champion already: the same data and code made the same release")
                self.events.append(f"{self.champion} is the champion already: the same data made the same model")
                return True
            self._seen(decision, s)
            if decision["verdict"] != "pass":
                s.say(f"{decision['ref']} does not go live: {decision['why']}")
                if self.options.data is None:
                    raise EverloopError("The first model did not pass its gate.", decision["why"])
                self.events.append(f"the gate said {decision['verdict']} to {decision['ref']}: {decision['why']}")
                return self._earlier(decision, s)
            if decision["approval"] == "pending":
                s.say(f"{decision['against']} is live, so a person must approve its successor")
                if not self._approve(decision, s):
                    return False
            self.champion = self.first = decision["ref"]
            s.refs["champion"] = self.champion
            s.say(f"{decision['ref']} is the champion")
            self.events.append(f"{decision['ref']} passed its gate ({demo_figures.short(decision)}) and went live")
            return True

    def _earlier(self, decision: dict[str, Any], s: Stage) -> bool:
        """Whether a champion of an earlier round goes on answering."""
        if not decision["against"]:
            s.say("nothing is live, so the demo ends here; better columns or more rows may help, or requirements of your own: --require 'RULE'")
            self.events.append("what you require is yours to say: add --require 'auc >= 0.6' (or another rule; again for more)")
            return False
        s.say(f"{decision['against']} goes on answering")
        self.champion = self.first = decision["against"]
        return True

    def _seen(self, decision: dict[str, Any], s: Stage) -> None:
        """A decision's figures, kept and said."""
        s.refs["decision"] = decision["id"]
        s.scores(decision["scores"])
        for score in decision["scores"]:
            s.say(demo_figures.gate_line(score))

    def _approve(self, decision: dict[str, Any], s: Stage) -> bool:
        if approved(self.client, decision, self.options, s):
            return True
        self.waiting = decision["id"]
        self.events.append(f"{decision['ref']} passed its gate and waits for a person")
        return False

    # 4. serve

    def serve(self) -> None:
        """The endpoint answers by the Open Inference Protocol, and a whole file in batches."""
        with self.report.stage(CASE, "serve") as s:
            feed = self.feed
            self.client.endpoints.put(feed.name, "predict", release=feed.name)
            s.refs["endpoint"] = f"/v2/models/{feed.name}/infer"
            row = demo_feed.plain_rows(
                feed.weeks[0].rows.dropna().head(1) if len(feed.weeks[0].rows.dropna()) else feed.weeks[0].rows.head(1), feed.features
            )[0]
            answer = demo_figures.infer(self.client, feed.name, row)
            s.say(f"POST /v2/models/{feed.name}/infer: {demo_figures.outputs(answer)}")
            s.refs["trace"] = answer["parameters"]["trace_id"]
            s.refs["release"] = answer["parameters"]["release"]
            demo_figures.batch(self.client, feed, self.options.home / "demo", s)
            retrain = {"pipeline": feed.name, "params": self.params}
            self.monitor = self.client.monitors.put(
                feed.name,
                feed.name,
                checks=[{"check": "decay"}, {"check": "drift"}],
                window_days=7,
                label_window_days=56 if feed.shift_week else 21,
                min_rows=min(100, min(len(w.rows) for w in feed.weeks)),
                on_fail=retrain,
            )
            s.refs["monitor"] = feed.name
            s.say("a monitor watches it: errors by labels (decay) start a retraining, a shift of inputs (drift) is told")

    # 5. observe

    def observe(self) -> None:
        """Weeks pass until a challenger passed its gate, or the weeks are over."""
        with self.report.stage(CASE, "observe") as s:
            while self.position < len(self.feed.weeks) and not self.waiting:
                if self._week(s):
                    return
            s.say(self.loader.told())
            if self.alarm is None:
                s.say(f"{len(self.feed.weeks)} weeks passed and the monitor saw no decay; nothing was retrained")
                self.events.append(f"in {len(self.feed.weeks)} weeks the monitor saw no decay, so nothing was retrained")
                if self.feed.shift_week is not None:
                    raise EverloopError("The world changed and the monitor saw no decay.", "See the figures of this stage.")
            elif self.feed.shift_week is not None:
                raise EverloopError("The model decayed, and no challenger passed its gate.", "See the decisions: everloop gates decisions")

    def _week(self, s: Stage) -> bool:
        """Replay one week; True when the monitor started a retraining whose release passed its gate (self.decision)."""
        week = self.feed.weeks[self.position]
        self.position += 1
        s.doing(f"week {week.number}: {len(week.rows)} rows")
        self.loader.begin(week, s)
        self._send(week)
        self._label(week.until)
        self.loader.finish(s)
        seen = self.client.monitors.tick(self.feed.name, week.until)
        demo_figures.monitor_figures(s, seen, week.number, before_shift=self._before_shift(week))
        if seen["verdict"] == "fail" and self.drift_week is None and not seen["act"]:
            self.drift_week = week.number
        s.say(f"week {week.number}: {demo_figures.monitor_line(seen, self.task['task'])}")
        if not seen["run"]:
            return False
        self.alarm = {"week": week.number, **seen}
        s.say(f"the monitor starts a retraining by itself: run {seen['run']}")
        s.refs[f"retraining_week_{week.number}"] = seen["run"]
        made = self._built(seen["run"], s)
        s.refs |= {f"{k}_week_{week.number}": v for k, v in made.items()}
        if not made.get("decision"):
            s.say(f"{made['release']} is the champion already: the same data made the same release")
            return False
        self.decision = self.client.gates.decision(made["decision"])
        self._seen(self.decision, s)
        if self.decision["verdict"] != "pass":
            s.say(f"{made['release']} is refused ({self.decision['verdict']}); {self.champion} goes on")
            self.retrained.append(
                f"week {week.number}: {demo_figures.alarm(seen, self.task['task'])}; retrained; {_plain(made['release'])} refused ({self.decision['verdict']})"
            )
            return False
        self.retrained.append(
            f"week {week.number}: {demo_figures.alarm(seen, self.task['task'])}; retrained; {_plain(made['release'])} passed{demo_figures.compared(self.decision)}"
        )
        return True

    def _before_shift(self, week: Week) -> bool | None:
        return None if self.feed.shift_week is None else week.number < self.feed.shift_week

    def _send(self, week: Week) -> None:
        """The week's rows through the endpoint, a call a day; the answers are kept with their outcomes until these are known."""
        rows = demo_feed.plain_rows(week.rows, self.feed.features)
        outcome = week.rows[self.feed.target].tolist()
        for day in range(DAYS):
            some = range(len(rows) * day // DAYS, len(rows) * (day + 1) // DAYS)
            if not some:
                continue
            at = week.since + (day + 1) * demo_feed.WEEK / DAYS - 1
            answer = self.client.endpoints.predict(self.feed.name, [rows[i] for i in some], at=at)
            for i, told in zip(some, answer["predictions"], strict=True):
                self.sent.append(
                    {**told, "release": answer["release"], "week": week.number, "known": week.known[i], "label": outcome[i], "sent": False}
                )

    def _label(self, at: float) -> None:
        """Outcomes known by now are sent as labels."""
        due = [p for p in self.sent if not p["sent"] and p["known"] <= at and p["label"] == p["label"] and p["label"] is not None]
        self.client.traces.labels({"prediction_id": p["prediction_id"], "label": _text(p["label"], self.task), "at": p["known"]} for p in due)
        for p in due:
            p["sent"] = True

    # 6. adapt

    def adapt(self) -> None:
        """The challenger waits for a person, is promoted, and the remaining weeks show whether it is better."""
        if self.decision.get("verdict") != "pass" or self.decision["ref"] == self.champion or self.waiting:
            return
        with self.report.stage(CASE, "adapt") as s:
            before = self.champion
            if not self._promote(s):
                return
            alarm = dict(self.alarm or {})
            while self.position < len(self.feed.weeks) and not self.waiting:
                if self._week(s):
                    self._promote(s)
            since = max(self.feed.shift_week or 0, int(alarm["week"]) - ALARM_WEEKS)
            self.recovered = demo_figures.recovery(s, self.sent, self.task, before, since)

    def _promote(self, s: Stage) -> bool:
        decision = self.decision
        s.refs |= {"challenger": decision["ref"], "decision": decision["id"]}
        if decision["approval"] == "pending":
            s.say(f"{decision['ref']} waits for a person's approval (the gate says approval: not_first)")
            if not self._approve(decision, s):
                return False
        self.champion = decision["ref"]
        s.refs["champion"] = self.champion
        s.say(f"{self.champion} is the champion; the endpoint answers with it from the next call on")
        return True

    # 7. why

    def why(self) -> None:
        """Back from the last answer, and forward from the first load."""
        with self.report.stage(CASE, "why") as s:
            last = self.sent[-1]["prediction_id"]
            found = self.client.why(last)
            s.refs["prediction"] = last
            names = [node["ref"] for node in found["nodes"]]
            s.say(f"everloop why {last}")
            s.say(f"   rests on {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")
            reached = self.client.impact(self.history)
            answers = sum((reached.get("answers") or {}).values())
            s.refs["dataset"] = self.history
            s.figure("impact_releases", len(reached["releases"]))
            s.figure("impact_calls", answers)
            s.say(f"everloop impact {self.history}")
            s.say(f"   {len(reached['nodes'])} versions and runs rest on it; {', '.join(reached['releases'])} answered {answers} calls")

    def tell(self) -> None:
        """What the last screen says."""
        name = self.feed.name
        lines = [*self.events[:1], *_shortened(self.retrained), *self.events[1:]]
        told = [f"{metric} {old.value:.3f} -> {new.value:.3f}" for metric, (old, new) in self.recovered.items()]
        if told:
            old, new = next(iter(self.recovered.values()))
            told[-1] += f" (n {old.n}, {new.n})"
            lines.append(f"approved and promoted; live {', '.join(told)}")
            lines += demo_figures.worse(self.recovered)
        links = {"endpoint": f"/ui/endpoints/{name}", "monitor": f"/ui/monitors/{name}"} if self.champion else {"pipeline": f"/ui/pipelines/{name}"}
        if self.decision.get("id"):
            links["last decision"] = f"/ui/decisions/{self.decision['id']}"
        if self.sent:
            links["last answer"] = f"/ui/traces/{self.sent[-1]['prediction_id'].partition('-')[0]}"
        title = f"{self.task['task']} on {self.options.data.name if self.options.data else 'generated loans'}; {self.champion or 'nothing'} is live"
        following = ["everloop demo credit --data YOUR.csv --target COLUMN", "everloop init my-project --template tabular"]
        if self.options.data is not None and not self.champion:
            asked = f"--data {self.options.data} --target {self.options.target} --require 'RULE'"
            following.insert(0, f"everloop demo credit {asked}")
        if self.waiting:
            following.insert(0, f"everloop gates approve {self.waiting}")
        self.report.tell(CASE, title, lines, links, following, whole=bool(self.champion) and not self.waiting)


def _plain(ref: str) -> str:
    return ref.partition(":")[2]


def _shortened(lines: list[str], most: int = 4) -> list[str]:
    """The first and the last of many lines."""
    if len(lines) <= most:
        return lines
    return [*lines[:2], f"... {len(lines) - most + 1} retrainings more ...", *lines[-(most - 3) :]]


def _text(value: Any, task: dict[str, Any]) -> Any:
    from everloop.core.labels import label

    return float(value) if task["task"] == "regression" else label(value)
