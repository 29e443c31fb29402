"""From an exact release to a callable: the chain of wrappers that its pins, policy and params ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.refs import Ref
from everloop.core.types import Answer, Call, Serve
from everloop.serve.predictor import predictor


def build(stores: Any, project: str, release: Mapping[str, Any], pins: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any] | None) -> Serve:
    """The release as a `Serve`, loaded and ready. Blocking: call it in a thread. `stores` has .objects.

    `pins` are the assets by role, `policy` the policy's asset. BadInput for a release that cannot be served.
    """
    manifest = release["manifest"]
    read = lambda digest: stores.objects.get(project, digest)
    if manifest["kind"] == "predict":
        inner = predictor(pins["model"]["manifest"], read, (manifest.get("params") or {}).get("threshold"))
    else:
        from everloop.serve.answer import chat

        inner = chat(manifest, pins, policy["manifest"] if policy else None, read)
    ref = Ref.parse(release["ref"])
    if ref.version is None:
        raise BadInput(f"{ref} is not exact; only an exact release is served.")

    async def serve(call: Call) -> Answer:
        return (await inner(call)).replace(release=ref)

    return serve
