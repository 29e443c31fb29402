"""The tutor's case of the demo: a folder of documents once round the loop, to a guarded chat endpoint that was tested before it went live.

Nothing is rigged: versions differ in settings chosen beforehand (everloop/build/tutor.py), the gate judges them on questions written from the
documents, and what it says is shown as it is, also where a version expected to be better could not be shown to be.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop.build import index, tutor
from everloop.build.questions import questions
from everloop.cli import demo_chat
from everloop.cli.demo_report import Options, Report, Stage
from everloop.core.errors import EverloopError, GateRefused, NotFound

NAME = "tutor"
"""What prompt, policy, suite, release and endpoint are called."""


@dataclass
class Made:
    """What the stages hand on."""

    name: str
    documents: str = ""
    texts: list[dict[str, Any]] = field(default_factory=list)
    index: str = ""
    policy: str = ""
    engine: dict[str, Any] = field(default_factory=dict)
    cases: int = 0
    releases: list[str] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    @property
    def llm(self) -> bool:
        """Whether an LLM answers, which reads the prompt's words."""
        return self.engine.get("name") != "extractive"


def run(client: Any, report: Report, options: Options) -> None:
    """Take the tutor once round the loop; a stage that fails raises."""
    made = Made(_named(options.docs) if options.docs else "handbook")
    with report.stage(NAME, "documents and index") as stage:
        _load(client, stage, made, options.docs)
    with report.stage(NAME, "prompt, policy, engine, release") as stage:
        _release_first(client, stage, made)
    with report.stage(NAME, "suite of questions") as stage:
        _suite(client, stage, made, options)
    with report.stage(NAME, "gate") as stage:
        _gate_first(client, stage, made, options.docs is not None)
    with report.stage(NAME, "endpoint") as stage:
        made.traces = demo_chat.ask(client, stage, NAME, _asked(made, options.docs))
    with report.stage(NAME, "feedback") as stage:
        demo_chat.feedback(client, stage, made.traces)
        demo_chat.watch(client, stage, NAME)
    with report.stage(NAME, "a worse version") as stage:
        _worse(client, stage, made)
    with report.stage(NAME, "a better version") as stage:
        _better(client, stage, made, _asked(made, options.docs)[0])
    with report.stage(NAME, "why") as stage:
        demo_chat.why(client, stage, made.traces[0])
    _tell(report, made, options.docs)


def _load(client: Any, stage: Stage, made: Made, folder: Path | None) -> None:
    stage.doing("reading documents")
    if folder is not None:
        asset = client.data.add_documents(made.name, folder)
    else:
        with tempfile.TemporaryDirectory() as place:
            asset = client.data.add_documents(made.name, tutor.documents(Path(place)))
    made.documents = stage.refs["documents"] = asset["ref"]
    manifest = asset["manifest"]
    kinds: dict[str, int] = {}
    for document in manifest["documents"]:
        kind = Path(document["path"]).suffix.lstrip(".") or "text"
        kinds[kind] = kinds.get(kind, 0) + 1
    stage.say(f"{len(manifest['documents'])} documents ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})")
    for skipped in manifest["skipped"][:5]:
        stage.say(f"left out {skipped['path']}: {skipped['why']}")
    made.texts = client.data.documents(asset["ref"])
    made.index = stage.refs["index"] = _index(client, stage, made)


def _index(client: Any, stage: Stage, made: Made) -> str:
    """The index of the documents, built by a pipeline in a worker."""
    client.pipelines.put("tutor-index", index.PIPELINE)
    run = client.pipelines.run("tutor-index", {"documents": made.documents, "name": made.name, **tutor.CHUNKS})
    stage.refs["pipeline run"] = run["id"]
    stage.doing("building the index in a worker")
    built = client.pipelines.wait(run["id"])["tasks"][0]["result"]
    stage.say(f"{built['index']}: {built['count']} passages of up to {tutor.CHUNKS['chars']} characters (BM25 and LSA, no download)")
    return str(built["index"])


def _release_first(client: Any, stage: Stage, made: Made) -> None:
    from everloop.engines.choose import choose

    made.engine, why = choose()
    stage.say(why)
    if not made.llm:
        stage.say("prompt text not tested: no LLM; the versions differ in retrieval, thresholds and citations, which this engine does use")
    policy = tutor.policy([str(d["text"]) for d in made.texts])
    made.policy = client.policies.put(NAME, policy["rules"], stream=policy["stream"], refusal=policy["refusal"])["ref"]
    stage.refs["policy"] = made.policy
    stage.say(f"policy: {', '.join(dict.fromkeys(rule['check'].replace('_', ' ') for rule in policy['rules']))}")
    if not any(rule["check"] == "off_topic" for rule in policy["rules"]):
        stage.say("no rule for off-topic questions: there are too few documents or sentences to calibrate one on")
    _make(client, stage, made, 0)


def _make(client: Any, stage: Stage, made: Made, number: int) -> str:
    """The release of one of the three versions."""
    version = tutor.VERSIONS[number]
    prompt = client.prompts.put(NAME, version["text"], settings=version["settings"], description=version["what"])
    pins = {"prompt": prompt["ref"], "index": made.index}
    release = client.assets.release(NAME, "chat", pins, {"engine": made.engine}, made.policy, description=version["what"])
    stage.refs["prompt"], stage.refs["release"] = prompt["ref"], release["ref"]
    stage.say(f"{prompt['ref']}: {version['what']}")
    made.releases.append(release["ref"])
    return str(release["ref"])


def _suite(client: Any, stage: Stage, made: Made, options: Options) -> None:
    if options.docs is None:
        suite = client.suites.put(NAME, tutor.CASES)
    else:
        cases = questions(made.texts, options.seed)
        if not cases:
            raise EverloopError(f"No question could be made from the documents in {options.docs}.", "They hold too little text.")
        made_up = len(cases)
        cases += [case for case in tutor.cases() if case["kind"] in ("harmful", "injection")]
        suite = client.suites.put(NAME, cases)
        stage.say(
            f"{made_up} questions were generated from your documents' headings and sentences (tag: generated), so they are easier than people's"
        )
    stage.refs["suite"] = suite["ref"]
    made.cases = suite["manifest"]["count"]
    kinds = suite["manifest"]["kinds"]
    stage.say(f"{suite['manifest']['count']} questions: {', '.join(f'{n} {kind.replace(chr(95), chr(32))}' for kind, n in kinds.items())}")


def _gate_first(client: Any, stage: Stage, made: Made, own: bool) -> None:
    begun = None
    with suppress(NotFound):
        begun = client.assets.get(f"release:{NAME}@champion")
    if begun is not None:
        client.assets.remove_alias("release", NAME, "champion")
        stage.say(f"{begun['ref']} was live from an earlier demo; it was taken down to begin again")
    client.gates.declare("release", NAME, suite=f"suite:{NAME}", requirements=tutor.requirements(own, made.llm, made.cases))
    decision = _evaluate(client, stage, made, made.releases[0])
    if decision["verdict"] != "pass":
        few = f" The documents gave {made.cases} questions; more documents give more." if own and decision["verdict"] == "inconclusive" else ""
        raise EverloopError(f"{decision['ref']} did not pass its gate: {decision['why']}", f"Nothing went live.{few} See the decision in the UI.")
    client.assets.move_alias(decision["ref"], "champion", decision=decision["id"], why="the demo's first version passed its gate")
    stage.say(f"pass: {decision['ref']} is champion")
    client.endpoints.put(NAME, "chat", release=NAME)
    stage.refs["endpoint"] = NAME


def _evaluate(client: Any, stage: Stage, made: Made, release: str) -> dict[str, Any]:
    stage.doing("asking all questions of the suite")
    decision = client.gates.evaluate(release)
    made.decisions.append(decision)
    stage.refs["decision"] = decision["id"]
    stage.scores(decision["scores"])
    for score in decision["scores"]:
        if score["value"] is not None and not score["details"].get("compared"):
            stage.say(f"{score['verdict']:<12} {score['name']}: {_figure(score)}")
    if any(score["name"].startswith("error_rate") and score["value"] for score in decision["scores"]):
        cases = client._http.get(f"/api/v1/decisions/{decision['id']}/evidence")["candidate"]["cases"]
        failed = [case for case in cases if case.get("error")]
        stage.say(f"{len(failed)} of {len(cases)} questions failed to run, the first with: {failed[0]['error'][:300]}")
    return dict(decision)


def _figure(score: Mapping[str, Any]) -> str:
    low, high = score["interval"] or (None, None)
    between = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
    return f"{score['value']:.3g}{between}, n = {score['n']}"


def _worse(client: Any, stage: Stage, made: Made) -> None:
    release = _make(client, stage, made, 1)
    decision = _evaluate(client, stage, made, release)
    _compared(stage, decision)
    if decision["verdict"] == "pass":
        stage.say("the gate let it pass: on these questions it is not shown to be worse (unexpected; it was not promoted)")
        return
    try:
        client.assets.move_alias(release, "champion", why="someone tries")
    except GateRefused as refused:
        stage.say(f"refused: {refused.what[:180]}")
    else:
        raise EverloopError(f"{release} became champion though its gate said {decision['verdict']}.", "This must not happen; please report it.")


def _better(client: Any, stage: Stage, made: Made, question: str) -> None:
    release = _make(client, stage, made, 2)
    decision = _evaluate(client, stage, made, release)
    _compared(stage, decision)
    if decision["verdict"] != "pass":
        stage.say(f"not promoted, the gate says {decision['verdict']}: {decision['why'][:300]}")
        return
    client.assets.move_alias(release, "champion", decision=decision["id"], why="passed its gate")
    stage.say(f"pass: {release} is champion; {_shown_better(decision)}")
    trace, text, _ = demo_chat.whole(client, NAME, question)
    stage.refs["trace"] = trace
    stage.say(f"asked again: {question}")
    stage.say(f"  {demo_chat.short(text)}")


def _compared(stage: Stage, decision: Mapping[str, Any]) -> None:
    for score in decision["scores"]:
        told = score["details"]
        if told.get("compared"):
            stage.say(f"{score['verdict']:<12} {score['name']}: {told['champion']:.3g} -> {told['candidate']:.3g}, difference {_figure(score)}")


def _shown_better(decision: Mapping[str, Any]) -> str:
    """What the paired comparison has shown, in words: better only where the whole interval of a difference says so."""
    better = []
    for score in decision["scores"]:
        if score["details"].get("compared") and score["interval"]:
            low, high = score["interval"]
            up = ">=" in score["name"]
            if (low > 0) if up else (high < 0):
                better.append(re.split(r"\s*[<>]=?", score["name"])[0].replace("_", " "))
    if better:
        return f"shown to be better in: {', '.join(better)}"
    return "it is shown to be no worse than the margins allow, not shown to be better"


def _asked(made: Made, folder: Path | None) -> list[str]:
    """The first questions that the endpoint is asked; the second is streamed."""
    if folder is None:
        return ["What does the champion alias do?", "How long is a gate decision valid?"]
    return [case["question"] for case in questions(made.texts, most=2)]


def _named(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "documents"


def _tell(report: Report, made: Made, folder: Path | None) -> None:
    by = made.engine["name"] if not made.llm else f"{made.engine['model']} ({made.engine['name']})"
    verdicts = [f"{NAME}@{n + 1} {decision['verdict']}" for n, decision in enumerate(made.decisions)]
    live = made.releases[2] if made.decisions[-1]["verdict"] == "pass" else made.releases[0]
    lines = [
        f"{len(made.texts)} documents -> {made.index}; answered by {by}" + ("" if made.llm else "; prompt text not tested: no LLM"),
        f"the gate on {_questions(made)} questions: {', '.join(verdicts)}; live: {live}",
        *([f"{live} {_shown_better(made.decisions[-1])}"] if live == made.releases[2] else []),
    ]
    links = {
        "endpoint": f"/ui/endpoints/{NAME}",
        "decision": f"/ui/decisions/{made.decisions[-1]['id']}",
        "a trace": f"/ui/traces/{made.traces[0]}",
        "lineage": f"/ui/lineage?ref={live}",
    }
    asked = _asked(made, folder)[0]
    report.tell(
        NAME,
        "documents to a guarded, tested chat endpoint",
        lines,
        links,
        ["everloop demo tutor --docs YOUR_FOLDER", f'everloop chat {NAME} "{asked}"'],
    )


def _questions(made: Made) -> int:
    return max((score["n"] for score in made.decisions[0]["scores"]), default=0)
