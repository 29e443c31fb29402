"""Releases: manifests that pin every version needed to answer. Endpoints serve these and nothing else."""

from __future__ import annotations

from typing import Any

from everloop.assets import catalog, lineage, prompts
from everloop.core.errors import BadInput
from everloop.core.refs import Ref, check_name
from everloop.core.types import Release
from everloop.store.records import Tx

ROLES = {"predict": {"model": "model", "features": "dataset"}, "chat": {"prompt": "prompt", "index": "index", "adapter": "adapter", "model": "model"}}
NEEDED = {"predict": "model", "chat": "prompt"}


def make(
    tx: Tx,
    name: str,
    kind: str,
    pins: dict[str, str],
    params: dict[str, Any] | None = None,
    policy: str | None = None,
    run: str | None = None,
    description: str = "",
) -> dict[str, Any]:
    """Register `release:name@next`. Each pin (role to reference) is resolved to an exact version now, so the manifest never moves.

    Raises BadInput for an unknown kind or role or a missing one, and for a prompt's variable that nothing fills; NotFound for a reference
    to nothing.
    """
    check_name(name)
    if kind not in ROLES:
        raise BadInput(f"A release of kind {kind!r} cannot be.", f"Kinds: {', '.join(ROLES)}.")
    if NEEDED[kind] not in pins:
        raise BadInput(
            f"A {kind} release pins a {NEEDED[kind]}; pinned are: {', '.join(pins) or 'none'}.",
            f'Add pins={{"{NEEDED[kind]}": "{NEEDED[kind]}:NAME@VERSION"}}.',
        )
    exact: dict[str, str] = {}
    for role, ref in pins.items():
        if role not in ROLES[kind]:
            raise BadInput(f"A {kind} release has no pin {role!r}.", f"Pins: {', '.join(ROLES[kind])}.")
        exact[role] = str(catalog.resolve(tx, Ref.parse(ref, ROLES[kind][role])))
    if kind == "chat":
        prompts.check_settings(params or {}, f"release:{name}")
        prompts.check_filled(catalog.get(tx, exact["prompt"])["manifest"], (params or {}).get("variables") or {})
    exact_policy = str(catalog.resolve(tx, Ref.parse(policy, "policy"))) if policy else None
    manifest = Release(name, "predict" if kind == "predict" else "chat", exact, params or {}, exact_policy).to_json()
    asset = catalog.register(tx, "release", name, manifest, run=run, description=description)
    for ref in [*exact.values(), *([exact_policy] if exact_policy else [])]:
        lineage.link(tx, ref, asset["ref"], "pins")
    return asset
