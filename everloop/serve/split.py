"""Which release answers: traffic split by weight, sticky by user or session, and a shadow whose answers no one sees."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everloop.core.errors import NotFound
from everloop.core.types import Answer, Call, Serve, TraceContext
from everloop.serve.record import Write, without
from everloop.serve.spans import plain, span

Live = Callable[[], Mapping[str, tuple[str, Serve]]]


def split(name: str, parts: Sequence[Mapping[str, Any]], live: Live, shadow: str | None, spawn: Callable[[Any], Any], write: Write) -> Serve:
    """Send each call to one of `live()[alias] = (release, serve)` by the weights of `parts`.

    A call with a user or session always meets the same part while the weights stand; others are spread by their trace id. `shadow`, if
    set, gets the same call beside; its answer is kept as a span and never returned. NotFound where no alias is set yet.
    """

    async def serve(call: Call) -> Answer:
        table = live()
        there = [part for part in parts if part["alias"] in table and part.get("weight", 100) > 0]
        if not there:
            wanted = ", ".join(str(p["alias"]) for p in parts)
            raise NotFound(f"Nothing is live behind the endpoint {name!r}: no release has the alias {wanted}.", "Promote one, then call again.")
        alias = str(there[0]["alias"] if len(there) == 1 else _pick(name, call, there)["alias"])
        release, chosen = table[alias]
        call.trace.attributes.update({"everloop.release": release, "everloop.alias": alias})
        if shadow and shadow in table and shadow != alias and not getattr(call.inputs, "stream", False):
            spawn(_shadowed(call, *table[shadow], write))
        return await chosen(call)

    return serve


def _pick(name: str, call: Call, parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    who = call.params.get("user") or call.params.get("session") or call.trace.trace_id
    total = sum(float(part.get("weight", 100)) for part in parts)
    point = int.from_bytes(hashlib.blake2b(f"{name}\0{who}".encode(), digest_size=8).digest()) / 2**64 * total
    for part in parts:
        point -= float(part.get("weight", 100))
        if point < 0:
            return part
    return parts[-1]


async def _shadowed(call: Call, release: str, serve: Serve, write: Write) -> None:
    """The same call to the shadow, in spans of its own below the call's root; its failure is on its span and goes no further."""
    trace = TraceContext(call.trace.trace_id, call.trace.span_id, at=call.trace.at)
    with contextlib.suppress(Exception), span(trace, "shadow", "CHAIN") as seen:
        seen.attributes.update({"everloop.shadow": True, "everloop.shadow.release": release})
        seen.outputs = plain((await serve(call.replace(trace=trace))).outputs)
    await write(call.principal, without(trace.spans, {**call.trace.hidden, **trace.hidden}), [])
