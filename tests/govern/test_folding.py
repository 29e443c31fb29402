"""What goes only into the next load of the same data set is told in one line; whatever else somebody used is not."""

from __future__ import annotations

from everloop.govern.folding import earlier


def edge(source: str, target: str) -> dict[str, str]:
    return {"source": source, "target": target, "relation": "read"}


def loads(n: int) -> list[dict[str, str]]:
    """Weekly loads: each reads the version before and makes the next."""
    made = []
    for i in range(1, n):
        made += [edge(f"dataset:loans@{i}", f"run:load{i + 1}"), edge(f"run:load{i + 1}", f"dataset:loans@{i + 1}")]
    return made


def test_a_chain_of_loads_is_one_line() -> None:
    found = earlier("model:credit@1", [*loads(30), edge("dataset:loans@30", "run:train"), edge("run:train", "model:credit@1")])
    assert found["chains"] == [{"after": "dataset:loans@30", "count": 29}]
    assert "run:load30" not in found["hidden"] and {"dataset:loans@29", "run:load29", "dataset:loans@1"} <= set(found["hidden"])


def test_a_version_that_something_else_read_stays() -> None:
    more = [edge("dataset:loans@5", "run:suite"), edge("run:suite", "suite:credit@1"), edge("suite:credit@1", "model:credit@1")]
    found = earlier("model:credit@1", [*loads(30), edge("dataset:loans@30", "model:credit@1"), *more])
    assert "dataset:loans@5" not in found["hidden"] and "run:load5" not in found["hidden"]
    assert found["chains"] == [{"after": "dataset:loans@30", "count": 28}]


def test_what_was_asked_about_is_never_folded() -> None:
    found = earlier("dataset:loans@3", loads(3))
    assert found == {"hidden": ["dataset:loans@1", "dataset:loans@2", "run:load2"], "chains": [{"after": "dataset:loans@3", "count": 2}]}
    plain = [edge("dataset:a@1", "run:x"), edge("run:x", "model:m@1")]
    assert earlier("model:m@1", plain) == {"hidden": [], "chains": []}
