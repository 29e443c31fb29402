"""Gates: declare what must hold, evaluate a version against it, approve, list decisions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from everloop.assets import catalog, gates
from everloop.assets.suites import parse as parse_cases
from everloop.core.errors import BadInput, NotFound
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref
from everloop.core.types import Results
from everloop.evaluate import suites
from everloop.evaluate.gate import judge
from everloop.evaluate.rules import parse

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Gates:
    """Facade over gates' records, suites and the judging of them."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def declare(self, who: Principal, kind: str, name: str, alias: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Declare what must hold before `alias` of `kind:name` moves; BadInput if a requirement does not parse or the suite is unknown.

        An approver is needed to change a gate that stands: whoever is judged by it must not loosen it.
        """
        who.need(Role.editor, "declare a gate")
        for text in spec.get("requirements") or []:
            parse(text)
        if spec.get("suite"):
            await self.ws.assets.get(who, Ref.parse(spec["suite"], "suite"))
        return await self.ws.records.write(who, lambda tx: gates.declare(tx, kind, name, alias, spec))

    async def list(self, who: Principal) -> list[dict[str, Any]]:
        """All gates of the project."""
        return await self.ws.records.read(who.need(Role.viewer), gates.listed)

    async def get(self, who: Principal, kind: str, name: str, alias: str) -> dict[str, Any] | None:
        """The gate of an alias, or None where it moves freely."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: gates.gate_for(tx, kind, name, alias))

    async def remove(self, who: Principal, kind: str, name: str, alias: str) -> None:
        """Remove a gate (admin)."""
        who.need(Role.admin, "remove a gate")
        await self.ws.records.write(who, lambda tx: gates.remove(tx, kind, name, alias))

    async def evaluate(self, who: Principal, ref: str, alias: str = "champion") -> dict[str, Any]:
        """Run the gate's suite against a release and the present holder of the alias, judge, and freeze the decision.

        The champion is served the same cases in the same run, so the comparison is paired. Raises NotFound where no gate is declared.
        """
        who.need(Role.editor, "evaluate a version")
        asset = await self.ws.assets.get(who, ref)
        exact = Ref.parse(asset["ref"])
        gate = await self.get(who, exact.kind, exact.name, alias)
        if gate is None:
            raise NotFound(
                f"No gate is declared for {exact.kind}:{exact.name}@{alias}, so there is nothing to evaluate against.",
                f"The alias moves freely; declare one with: everloop gates declare {exact.kind}:{exact.name} {alias} --require 'auc >= 0.7'",
            )
        if exact.kind != "release":
            raise BadInput(f"{asset['ref']} is a {exact.kind}; suites run against releases.", "Make a release that pins it, and gate that.")
        spec = gate["spec"]
        holders = await self.ws.records.read(who, lambda tx: catalog.aliases_of(tx, exact.kind, exact.name))
        against = holders.get(alias)
        against = None if against == exact.version else against
        spec = {**spec, "suite_ref": (await self.ws.assets.get(who, Ref.parse(spec["suite"], "suite")))["ref"] if spec.get("suite") else None}
        spec["suite_part"] = await self._part(who, spec["suite_ref"])
        candidate, held = await self._results(who, exact, spec), None
        if against is not None:
            held = await self._results(who, exact.exact(against), spec)
        verdict, why, scores = await asyncio.to_thread(judge, spec["requirements"], candidate, held, float(spec["confidence"]))
        evidence = await self._keep_evidence(who, candidate, held)
        listed = [score.to_json() for score in scores]
        return await self.ws.records.write(who, lambda tx: gates.store_decision(tx, exact, alias, spec, verdict, why, listed, against, evidence))

    async def decisions(
        self,
        who: Principal,
        kind: str | None = None,
        name: str | None = None,
        version: int | None = None,
        approval: str | None = None,
        limit: int = 100,
        before: float | None = None,
    ) -> list[dict[str, Any]]:
        """Decisions, newest first."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: gates.decided(tx, kind, name, version, approval, limit, before))

    async def decision(self, who: Principal, id: str) -> dict[str, Any]:
        """One decision with its frozen scores."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: gates.decision(tx, id))

    async def evidence(self, who: Principal, id: str) -> dict[str, Any]:
        """The results by case behind a decision."""
        found = await self.decision(who, id)
        if not found["evidence"]:
            raise NotFound(f"Decision {id} has no evidence kept.")
        return dict(orjson.loads(await self.ws.assets.get_object(who, found["evidence"])))

    async def cases(self, who: Principal, id: str) -> list[dict[str, Any]]:
        """A chat decision's cases one by one, expected and got, the wrong ones first (see evaluate/cases); nothing where its suite has no cases."""
        from everloop.evaluate.cases import judged

        kept = ((await self.evidence(who, id)).get("candidate") or {}).get("cases") or []
        return sorted((judged(case) for case in kept if isinstance(case, dict)), key=lambda case: bool(case["right"]))

    async def approve(self, who: Principal, id: str, why: str = "", *, move: bool = True) -> dict[str, Any]:
        """A person approves a decision that waits; with `move`, the alias moves at once."""
        who.need(Role.approver, "approve a decision")
        found = await self.ws.records.write(who, lambda tx: gates.settle(tx, id, True, why))
        if move:
            found["moved"] = await self.ws.assets.move_alias(who, found["ref"], found["alias"], decision=id, why=why or "approved")
        return found

    async def reject(self, who: Principal, id: str, why: str = "") -> dict[str, Any]:
        """A person rejects a decision that waits."""
        who.need(Role.approver, "reject a decision")
        return await self.ws.records.write(who, lambda tx: gates.settle(tx, id, False, why))

    async def pending(self, who: Principal) -> list[dict[str, Any]]:
        """Decisions that wait for a person."""
        return await self.decisions(who, approval="pending")

    async def _part(self, who: Principal, suite: str | None) -> dict[str, Any] | None:
        """What part of its dataset a suite asks: {"dataset", "name", "rows", "of"}; None where it asks all of it, or has cases."""
        manifest = (await self.ws.assets.get(who, suite))["manifest"] if suite else {}
        return {"dataset": manifest["dataset"], **manifest["part"]} if manifest.get("part") else None

    async def _results(self, who: Principal, release: Ref, spec: dict[str, Any]) -> Results:
        if not spec.get("suite"):
            raise BadInput(f"The gate of {release.kind}:{release.name} names no suite.", 'Declare it with "suite": "suite:NAME".')
        suite = await self.ws.assets.get(who, Ref.parse(spec.get("suite_ref") or spec["suite"], "suite"))
        manifest = suite["manifest"]
        serve = await self.ws.endpoints.run_release(who, str(release))
        if manifest["task"] == "chat":
            cases = parse_cases(await self.ws.assets.get_object(who, manifest["cases"]["digest"]))
            return await suites.run_chat(serve, who, cases)
        asset = await self.ws.assets.get(who, str(release))
        model = (await self.ws.assets.get(who, asset["manifest"]["pins"]["model"]))["manifest"]
        columns = await self.ws.data.columns(who, manifest["dataset"])
        if manifest["task"] == "clustering":
            inputs = model["signature"]["inputs"]
            numeric = [i["name"] for i in inputs if i["type"] in ("number", "integer")]
            return await suites.run_clusters(serve, who, columns, [i["name"] for i in inputs], numeric)
        return await suites.run_predictive(
            serve,
            who,
            columns,
            target=manifest["target"],
            task=manifest["task"],
            features=[i["name"] for i in model["signature"]["inputs"]],
            classes=model.get("classes") or (),
            positive=manifest.get("positive", model.get("positive")),
            protected=manifest.get("protected") or (),
        )

    async def _keep_evidence(self, who: Principal, candidate: Results, held: Results | None) -> str:
        body = {"candidate": _plain(candidate), "against": _plain(held) if held is not None else None}
        data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS, default=str)
        return str((await self.ws.assets.put_object(who, data))["digest"])


def _plain(results: Results) -> dict[str, Any]:
    def listed(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else value

    return {
        "n": results.n,
        "task": results.task,
        "y": listed(results.y),
        "prediction": listed(results.prediction),
        "probability": listed(results.probability),
        "classes": list(results.classes),
        "positive": results.positive,
        "features": {k: listed(v) for k, v in results.features.items()},
        "seconds": listed(results.seconds),
        "cpu_seconds": listed(results.cpu_seconds),
        "cases": [dict(c) for c in results.cases],
    }
