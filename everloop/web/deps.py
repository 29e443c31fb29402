"""What routes ask for: who is calling, and the workspace."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from everloop.core.principal import Principal
from everloop.workspace.workspace import Workspace


def _who(request: Request) -> Principal:
    return request.scope["everloop.who"]  # type: ignore[no-any-return]


def _ws(request: Request) -> Workspace:
    return request.app.state.workspace  # type: ignore[no-any-return]


Who = Annotated[Principal, Depends(_who)]
Ws = Annotated[Workspace, Depends(_ws)]
