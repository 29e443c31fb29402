"""What MLflow's searches may ask of traces: the grammar of run_filter with a trace's attributes, tags, metadata, spans and judgements."""

from __future__ import annotations

from everloop.assets import run_filter
from everloop.core.errors import BadInput

SPAN_FIELDS = ("name", "type", "status")
_TIMES = {
    **dict.fromkeys(("timestamp", "timestamp_ms", "request_time"), ("at_ms", "number")),
    **dict.fromkeys(("execution_time", "execution_time_ms", "execution_duration"), ("ms", "number")),
    **dict.fromkeys(("end_time", "end_time_ms"), ("end_ms", "number")),
}
_TEXTS = {
    "request_id": ("id", "matched list"),
    "trace_id": ("id", "matched list"),
    "client_request_id": ("client_request_id", "matched list"),
    "status": ("state", "matched list"),
    "state": ("state", "matched list"),
    "name": ("name", "matched list"),
    "run_id": ("run", "matched list"),
    "prompt": ("prompt", "exact"),
    "text": ("text", "content"),
}
_ENTITIES = {
    **dict.fromkeys(("attribute", "attributes", "attr", "trace"), "attribute"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("metadata", "request_metadata", "trace_metadata"), "metadata"),
    "span": "span",
    "feedback": "feedback",
    "expectation": "expectation",
    "issue": "issue",
}
_KINDS = {"tag": "matched null", "metadata": "matched null", "span": "matched list", "feedback": "mixed", "expectation": "mixed", "issue": "exact"}
TRACES = run_filter.Grammar("traces", {**_TIMES, **_TEXTS}, _ENTITIES, _KINDS)
ORDERS = run_filter.Grammar("traces", {**_TIMES, **_TEXTS, "experiment_id": ("experiment", "list")}, _ENTITIES, _KINDS)


def parse(text: str | None) -> list[run_filter.Clause]:
    """The clauses of a filter over traces, all of which must hold; BadInput says what is wrong with it."""
    clauses = run_filter.parse(text, TRACES)
    for one in clauses:
        if one.entity == "span" and not (one.key in SPAN_FIELDS or one.key == "content" or one.key.startswith("attributes.")):
            raise BadInput(f"Invalid span attribute '{one.key}'. Supported attributes: name, status, type, attributes.<attribute_name>.")
        if one.entity == "issue" and one.key != "id":
            raise BadInput(f"Invalid issue attribute '{one.key}'. Supported attributes: id")
        if (one.entity, one.key) == ("attribute", "prompt") and one.value.count("/") != 1:
            raise BadInput(f"Invalid prompts filter value '{one.value}'. Expected format: prompt = \"name/version\"")
    return clauses


def parse_order(texts: list[str]) -> list[tuple[str, str, bool]]:
    """(entity, key, ascending) of each order; BadInput for what traces cannot be ordered by."""
    orders = [run_filter.parse_order(text, ORDERS) for text in texts]
    for entity, key, _ in orders:
        if entity not in ("attribute", "tag", "metadata") or key in ("text", "prompt"):
            raise BadInput(
                f"Invalid order_by: traces cannot be ordered by the {entity} {key!r}.", "Order by: timestamp_ms, execution_time_ms, status, name."
            )
    if len({(entity, key) for entity, key, _ in orders}) < len(orders):
        raise BadInput(f"`order_by` contains duplicate fields: {texts}")
    return orders


EQUAL = run_filter.Grammar(
    "trace metrics", {}, {"trace": "trace", "span": "span", "assessment": "assessment"}, dict.fromkeys(("trace", "span", "assessment"), "exact")
)


def parse_equal(texts: list[str]) -> tuple[list[run_filter.Clause], list[tuple[str, str]], list[tuple[str, str]]]:
    """Filters of trace metrics (`trace.status = "OK"`, `trace.tag.KEY`, `trace.metadata.KEY`, `span.name`, `assessment.name`, all with =):
    clauses of traces, and (key, value) of spans and of judgements. BadInput for others."""
    traces: list[run_filter.Clause] = []
    spans: list[tuple[str, str]] = []
    judgements: list[tuple[str, str]] = []
    for one in (clause for text in texts for clause in run_filter.parse(text, EQUAL)):
        head, _, rest = one.key.partition(".")
        if one.entity == "trace" and head in ("tag", "tags", "metadata") and rest:
            traces.append(run_filter.Clause(head.rstrip("s"), rest, "=", one.value))
        elif (one.entity, one.key) == ("trace", "status"):
            traces.append(run_filter.Clause("attribute", "state", "=", one.value))
        elif one.entity == "span" and one.key in SPAN_FIELDS:
            spans.append((one.key, one.value))
        elif one.entity == "assessment" and one.key in ("name", "type"):
            judgements.append((one.key, one.value))
        else:
            raise BadInput(
                f"Invalid filter: {one.entity}.{one.key} cannot be asked of trace metrics.", "Ask trace.status, trace.tag.KEY or span.name."
            )
    return traces, spans, judgements
