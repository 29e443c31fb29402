"""Who acts, in which project, and what they may do. Every write names its principal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from everloop.core.errors import BadInput, Forbidden

DEFAULT_PROJECT = "default"


class Role(IntEnum):
    """Roles in rising order; each may do all that the lower ones may.

    `caller` stands beside the order: it is for a key that a running application holds. It calls endpoints, sends traces and feedback, and sees
    nothing else. A viewer sees everything of the project and neither changes nor calls anything: a call costs money and leaves a trace.
    """

    caller = 5
    viewer = 10
    editor = 20
    approver = 30
    admin = 40

    @classmethod
    def of(cls, name: str) -> Role:
        """The role called `name`; BadInput lists the roles if there is none."""
        try:
            return cls[name]
        except KeyError:
            raise BadInput(f"There is no role {name!r}.", f"Roles: {', '.join(r.name for r in cls)}.") from None


@dataclass(frozen=True)
class Principal:
    """A person, a key, a pipeline or the local user, acting in one project with one role.

    `name` is what records keep: `user:ann`, `key:ci`, `pipeline:credit-weekly`, `local`.
    """

    name: str
    project: str
    role: Role
    kind: str = "key"
    site_admin: bool = False
    run: str = ""
    """For the token of a pipeline's step: the step's run. What it starts belongs under that run."""

    def need(self, role: Role, what: str = "do this") -> Principal:
        """Return self if the role suffices; raise Forbidden naming both roles otherwise."""
        if self.role < role:
            raise Forbidden(
                f"{self.name} is {self.role.name} in project {self.project!r}; to {what} one must be {role.name}.",
                "Ask an admin of the project for a key with that role.",
            )
        return self

    def need_call(self, what: str = "call an endpoint") -> Principal:
        """Return self if it may call endpoints and send what an application sends: callers, and editors upwards. Forbidden otherwise."""
        if self.role is Role.caller or self.role >= Role.editor:
            return self
        raise Forbidden(
            f"{self.name} is {self.role.name} in project {self.project!r}; to {what} one must be caller or editor.",
            "Ask an admin of the project for a key: everloop keys create NAME --role caller",
        )

    def reading(self) -> Principal:
        """Who the server reads as, inside a call that this principal was allowed to make: a caller's call needs its endpoint's release."""
        return self if self.role >= Role.viewer else replace(self, role=Role.viewer)

    def in_project(self, project: str) -> Principal:
        """The same principal in another project (the caller has checked that it may)."""
        return replace(self, project=project)


def local_principal(project: str = DEFAULT_PROJECT) -> Principal:
    """Whoever is at this machine: on loopback, with no key, one gets the default project as admin."""
    return Principal("local", project, Role.admin, kind="local", site_admin=True)


SYSTEM = Principal("system", DEFAULT_PROJECT, Role.admin, kind="system", site_admin=True)
