"""Steps for pipelines of one's own: a release of a model or of a chat, and its judgement at the gate.

A pipeline ends with `everloop.build.release:predict` or `:chat`, then `:gate`. They find what they need in the results of the steps before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput, NotFound

ALIAS = "champion"


def predict(step: Any) -> dict[str, Any]:
    """A release `name` that pins the model a step before answered as "model"; params: `threshold` (optional). Answers {"release"}."""
    params = {"threshold": step.params["threshold"]} if step.params.get("threshold") is not None else {}
    made = step.client.assets.release(_name(step), "predict", {"model": _found(step, "model")}, params, run=step.run.id)
    return {"release": made["ref"]}


def chat(step: Any) -> dict[str, Any]:
    """A chat release `name`: prompt, index (where a step before answered one), policy and engine pinned. Answers {"release", "pins", "engine"}.

    Params: `prompt` and `policy` (default: those called `name`; a policy may be missing), `engine` (default: extractive), `retrieval`, `answer`,
    `variables` (values for the prompt's own).
    """
    name = _name(step)
    pins = {"prompt": step.params.get("prompt") or f"prompt:{name}"}
    index = _found(step, "index", None)
    if index:
        pins["index"] = index
    params = {key: step.params[key] for key in ("retrieval", "answer", "variables") if step.params.get(key)}
    params["engine"] = dict(step.params.get("engine") or {"name": "extractive"})
    policy = step.params.get("policy") or _there(step, f"policy:{name}")
    made = step.client.assets.release(name, "chat", pins, params, policy, run=step.run.id)
    if not policy:
        step.log(f"{made['ref']} has no policy: there is no policy:{name}")
    return {"release": made["ref"], "pins": made["manifest"]["pins"], "engine": params["engine"]["name"]}


def gate(step: Any) -> dict[str, Any]:
    """Judge the release that a step before answered and promote it where it passes; see `promote`. Param `promote`: False only judges."""
    return promote(step, _found(step, "release"), move=bool(step.params.get("promote", True)))


def promote(step: Any, ref: str, *, move: bool = True) -> dict[str, Any]:
    """Judge a release beside the champion; it becomes champion if it passed and no person must agree. A refusal is an answer, not an error.

    Answers {"release", "verdict", "why", "approval", "against", "decision", "promoted"}; where no gate is declared the verdict is `ungated`.
    A chat that is champion already is tested again where its suite or rules changed since, and stays champion whatever the verdict.
    """
    client, asset = step.client, step.client.assets.get(ref)
    said: dict[str, Any] = {"release": ref, "verdict": "pass", "approval": "not_needed", "against": None, "decision": None, "promoted": True}
    gate = next((g["spec"] for g in client.gates.list() if (g["kind"], g["name"], g["alias"]) == ("release", asset["name"], ALIAS)), None)
    holds = ALIAS in asset["aliases"]
    last = _last(client, asset) if holds and gate else None
    if holds and not (gate and asset["manifest"].get("kind") == "chat" and _asked_anew(client, last, gate)):
        step.log(f"{ref} holds {ALIAS} already: the same content made the same release.")
        told = {"verdict": last["verdict"]} if last else {} if gate else {"verdict": "ungated"}
        return said | told | {"why": f"{ref} is the champion already."}
    if gate is None:
        why = f"No gate is declared for release:{asset['name']}@{ALIAS}, so nothing was tested."
        step.log(f"{why} Declare one: everloop gates declare {asset['name']} --suite ... --require ...")
        if move:
            client.assets.move_alias(ref, ALIAS, why="no gate is declared")
        return said | {"verdict": "ungated", "why": why, "promoted": move}
    decision = client.gates.evaluate(ref, ALIAS)
    said |= {key: decision[key] for key in ("verdict", "why", "approval", "against")} | {"decision": decision["id"], "promoted": False}
    step.run.log_params({"gate_verdict": decision["verdict"], "gate_decision": decision["id"]})
    step.log(f"{ref}: {decision['verdict']}. {decision['why']}")
    if holds:
        said |= {"promoted": True, "why": f"{ref} is the champion already; its questions or rules changed, so it was tested again. {decision['why']}"}
    elif decision["verdict"] != "pass":
        step.log(f"{ref} does not go live{', ' + str(decision['against']) + ' stays' if decision['against'] else ''}.")
    elif decision["approval"] == "pending":
        step.log(f"{ref} waits for a person: everloop gates approve {decision['id']}")
        said["why"] += f" It waits for a person's approval: everloop gates approve {decision['id']}"
    elif move:
        client.assets.move_alias(ref, ALIAS, decision=decision["id"], why="passed its gate")
        step.log(f"{ref} is {ALIAS} now.")
        said["promoted"] = True
    return said


def _last(client: Any, asset: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest decision about a version for the alias."""
    judged = client.gates.decisions(kind="release", name=asset["name"], version=asset["version"], limit=20)
    return next((d for d in judged if d["alias"] == ALIAS), None)


def _asked_anew(client: Any, last: Mapping[str, Any] | None, gate: Mapping[str, Any]) -> bool:
    """Whether the gate's suite or rules are others than those that the last decision rests on: what somebody wrote anew should be asked."""
    suite = client.assets.get(gate["suite"], "suite")["ref"] if gate["suite"] else None
    return last is None or (last["spec"].get("suite_ref"), last["spec"]["requirements"]) != (suite, gate["requirements"])


def _name(step: Any) -> str:
    name = step.params.get("name")
    if not name:
        raise BadInput(f"The step {step.name!r} needs the param 'name', of the release.", 'For example: {"name": "churn"}')
    return str(name)


def _found(step: Any, key: str, *default: Any) -> Any:
    """What a step before answered under `key` (the last one that did), else the param of that name."""
    for result in reversed([*step.inputs.values()]):
        if isinstance(result, Mapping) and result.get(key):
            return result[key]
    if step.params.get(key) or default:
        return step.params.get(key) or default[0]
    raise BadInput(
        f"The step {step.name!r} finds no {key}: neither a step before it answered one, nor is it a param.",
        f'Return {{"{key}": ref}} from the step before, or give the param.',
    )


def _there(step: Any, ref: str) -> str | None:
    try:
        step.client.assets.get(ref)
    except NotFound:
        return None
    return ref
