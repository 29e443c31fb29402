"""Redaction of a project's traces: which policy, over what, and the object that does it before anything is written (serve/redact.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput, Busy, EverloopError
from everloop.core.limits import REDACT_FEATURES, REDACT_TRY_CHARS
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.core.refs import Ref
from everloop.serve.redact import Parts, Redactor, redacting
from everloop.store import audit, project_settings
from everloop.store.secret import home_secret, pseudonym
from everloop.workspace.assets import make_check

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

SETTING = "redaction"
_logger = logging.getLogger("everloop.redaction")


class Redaction:
    """Facade over a project's redaction. Changing it is for admins, seeing it for viewers."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._redactors: dict[str, Redactor | None] = {}

    async def on_start(self) -> None:
        """Take up what the projects have set, before the first trace is written."""
        for project, setting in (await self.ws.records.read(SYSTEM, lambda tx: project_settings.everywhere(tx, SETTING))).items():
            try:
                self._redactors[project] = await asyncio.to_thread(self._made, project, setting)
            except EverloopError as error:
                _logger.error("the redaction of project %s cannot be done, so nothing of it is taken: %s", project, error)
                self._redactors[project] = None
        self.ws.telemetry.cleans = self._redactors.__contains__
        self.ws.telemetry.clean = self._clean

    async def get(self, who: Principal) -> dict[str, Any]:
        """What is set: {"policy": exact reference or None, "rules", "drop", "hash"}."""
        setting = await self.ws.records.read(who.need(Role.viewer), lambda tx: project_settings.get(tx, SETTING))
        return setting or {"policy": None, "rules": [], "drop": [], "hash": []}

    async def put(self, who: Principal, policy: str, *, drop: Sequence[str] = (), hash: Sequence[str] = ()) -> dict[str, Any]:
        """Redact all that is written from now on by the redacting rules of a policy (`name`, `name@2`, `name@alias`; kept as the exact version).

        `drop` and `hash`: features of predictions that are left out, or kept as keyed hashes. BadInput for a policy that redacts nothing.
        """
        who.need(Role.admin, "set what traces lose")
        asset = await self.ws.assets.get(who, Ref.parse(policy, "policy"))
        for names in (drop, hash):
            if isinstance(names, str) or len(names) > REDACT_FEATURES or not all(isinstance(name, str) and name for name in names):
                raise BadInput(f"Features to drop or hash are a list of names, at most {REDACT_FEATURES}.", 'For example: ["name", "ssn"]')
        setting = {"policy": asset["ref"], "rules": asset["manifest"]["rules"], "drop": sorted(set(drop)), "hash": sorted(set(hash))}
        made = await asyncio.to_thread(self._made, who.project, setting)

        def work(tx: Any) -> None:
            project_settings.put(tx, SETTING, setting)
            audit.record(tx, "redaction.set", f"project:{tx.project}", policy=asset["ref"], drop=setting["drop"], hash=setting["hash"])

        await self.ws.records.write(who, work)
        self._redactors[who.project] = made
        return setting

    async def clear(self, who: Principal) -> None:
        """Redact nothing from now on. What was redacted stays so."""
        who.need(Role.admin, "set what traces lose")

        def work(tx: Any) -> None:
            if project_settings.get(tx, SETTING) is not None:
                project_settings.put(tx, SETTING, None)
                audit.record(tx, "redaction.clear", f"project:{tx.project}")

        await self.ws.records.write(who, work)
        self._redactors.pop(who.project, None)

    async def attempt(self, who: Principal, text: str, policy: str | None = None) -> dict[str, Any]:
        """What a text would be written as: {"text", "found": {kind: n}, "policy"}; by the project's redaction, or by a policy given."""
        who.need(Role.viewer)
        if not isinstance(text, str) or len(text) > REDACT_TRY_CHARS:
            raise BadInput(f"Give a text of at most {REDACT_TRY_CHARS} characters.")
        redactor = self._redactors.get(who.project)
        if policy is not None:
            asset = await self.ws.assets.get(who, Ref.parse(policy, "policy"))
            redactor = await asyncio.to_thread(self._made, who.project, {"policy": asset["ref"], "rules": asset["manifest"]["rules"]})
        if redactor is None:
            raise BadInput("The project redacts nothing.", "Set a policy with: everloop redaction set POLICY, or name one with --policy.")
        new, found = await asyncio.to_thread(redactor.text, text)
        return {"text": new, "found": found, "policy": redactor.ref}

    def stand_in(self, project: str, text: str) -> str:
        """The keyed hash that stands for a user's or a session's id where the id was redacted."""
        return pseudonym(home_secret(self.ws.home), project, text)

    def _made(self, project: str, setting: Mapping[str, Any]) -> Redactor:
        rules = redacting(setting, make_check)
        name = partial(pseudonym, home_secret(self.ws.home), project)
        return Redactor(setting["policy"], rules, name, setting.get("drop") or (), setting.get("hash") or ())

    def _clean(self, project: str, parts: Parts) -> Parts:
        redactor = self._redactors.get(project, _NOTHING)
        if redactor is None:
            raise Busy("The project's redaction cannot be done, so nothing is written.", "The server's log says why; set a policy anew.")
        return redactor.clean(*parts)


_NOTHING = Redactor("", (), str)
