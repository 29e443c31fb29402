"""The wrappers around a real model: loaded from ONNX, split by alias, bounded, recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.core.errors import BadInput, Busy, NotFound
from everloop.core.limits import SPAN_ROWS
from everloop.core.principal import Principal, local_principal
from everloop.core.types import Answer, Batch, Call, Chat, Chunk, Predictions, Span, TraceContext
from everloop.serve.limit import limit
from everloop.serve.predictor import predictor
from everloop.serve.record import record
from everloop.serve.split import split


class Sink:
    """Keeps what the recorder writes."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.predictions: list[dict[str, Any]] = []

    async def __call__(self, who: Principal, spans: list[Span], predictions: list[dict[str, Any]]) -> None:
        self.spans.extend(spans)
        self.predictions.extend(predictions)


def call_of(inputs: Any, **params: Any) -> Call:
    return Call("credit", inputs, local_principal(), TraceContext("a" * 32, "b" * 16, at=1_700_000_000.0), params=params)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Any]:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    trained = LogisticRegression().fit(x, (x[:, 0] > x[:, 1]).astype(int))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(to_onnx(trained, x[:1], options={"zipmap": False}).SerializeToString())
    inputs = [{"name": "a", "type": "number", "required": True}, {"name": "b", "type": "number", "required": False}]
    manifest = {"engine": "onnx", "files": [{"path": "model.onnx", "digest": "x"}], "classes": [0, 1], "positive": 1, "signature": {"inputs": inputs}}
    return manifest, path, trained


def test_a_model_answers_as_it_did_in_training(model: tuple[dict[str, Any], Path, Any]) -> None:
    manifest, path, trained = model
    serve = predictor(manifest, lambda digest: path.read_bytes())
    answer = asyncio.run(serve(call_of(Batch({"a": [1.0, 0.5], "b": [2, 0], "extra": [0, 0]}, 2)))).outputs
    assert answer.columns["prediction"] == [0, 1]
    expected = trained.predict_proba(np.asarray([[1, 2], [0.5, 0]], dtype=np.float32))[:, 1]
    assert answer.columns["probability_1"] == pytest.approx(expected, abs=1e-5)
    strict = predictor(manifest, lambda digest: path.read_bytes(), threshold=0.9999)
    assert asyncio.run(strict(call_of(Batch({"a": [0.5], "b": [0]}, 1)))).outputs.columns["prediction"] == [0]


def test_bad_rows_are_named(model: tuple[dict[str, Any], Path, Any]) -> None:
    serve = predictor(model[0], lambda digest: model[1].read_bytes())
    with pytest.raises(BadInput, match="(?i)row 1.*a.*old"):
        asyncio.run(serve(call_of(Batch({"a": [1, "old"], "b": [1, 1]}, 2))))
    with pytest.raises(BadInput, match="(?i)'a'"):
        asyncio.run(serve(call_of(Batch({"b": [1]}, 1))))


def test_calls_are_recorded_before_they_leave_failed_ones_too() -> None:
    sink = Sink()

    async def good(call: Call) -> Answer:
        return Answer(Predictions({"prediction": [1]}, 1))

    async def bad(call: Call) -> Answer:
        raise BadInput("no")

    asyncio.run(record(good, sink)(call_of(Batch({"a": [2.0]}, 1), user="u")))
    assert sink.predictions[0]["prediction_id"] == "a" * 32 + "-0" and sink.predictions[0]["features"] == {"a": 2.0}
    assert sink.spans[0].kind == "PREDICT" and sink.spans[0].attributes["user.id"] == "u" and sink.spans[0].start_ns == 1_700_000_000 * 10**9
    with pytest.raises(BadInput):
        asyncio.run(record(bad, sink)(call_of(Batch({}, 0))))
    assert sink.spans[1].status == "error"


def test_a_large_batch_is_recorded_row_by_row_and_keeps_no_other_call_waiting(model: tuple[dict[str, Any], Path, Any]) -> None:
    sink, n = Sink(), 50_000
    serve = record(predictor(model[0], lambda digest: model[1].read_bytes()), sink)

    async def run() -> int:
        task = asyncio.create_task(serve(call_of(Batch({"a": [0.5] * n, "b": [1.0] * n}, n))))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        await task
        return turns

    assert asyncio.run(run()) > 5
    assert len(sink.predictions) == n and sink.predictions[-1]["prediction_id"].endswith(f"-{n - 1}")
    root = sink.spans[0]
    assert len(root.inputs["a"]) == len(root.outputs["prediction"]) == SPAN_ROWS and root.attributes["everloop.rows"] == n


def test_a_stream_is_recorded_before_its_last_chunk_and_when_its_reader_leaves() -> None:
    sink = Sink()

    async def chunks() -> Any:
        for word in ("one ", "two"):
            yield Chunk(word)
        yield Chunk(finish_reason="stop")

    async def inner(call: Call) -> Answer:
        return Answer(chunks())

    async def read(stop: bool) -> None:
        stream = (await record(inner, sink)(call_of(Chat([], stream=True)))).outputs
        async for chunk in stream:
            if stop:
                break
            if chunk.finish_reason:
                assert sink.spans[-1].outputs == "one two"
        await stream.aclose()

    asyncio.run(read(stop=False))
    asyncio.run(read(stop=True))
    assert len(sink.spans) == 2 and sink.spans[1].attributes["everloop.cut"] and sink.spans[1].outputs == "one "


def test_a_user_always_meets_the_same_part_and_a_shadow_is_recorded_only() -> None:
    sink = Sink()

    def named(name: str) -> Any:
        async def serve(call: Call) -> Answer:
            return Answer(Predictions({"prediction": [name]}, 1))

        return serve

    table = {alias: (f"release:credit@{i}", named(alias)) for i, alias in enumerate(("champion", "canary", "shadow"))}
    parts = [{"alias": "champion", "weight": 80}, {"alias": "canary", "weight": 20}]

    async def run() -> list[str]:
        tasks: list[asyncio.Task[Any]] = []
        serve = split("credit", parts, lambda: table, "shadow", lambda work: tasks.append(asyncio.ensure_future(work)), sink)
        got = [(await serve(call_of(Batch({}, 1), user=str(i % 200)))).outputs.columns["prediction"][0] for i in range(400)]
        await asyncio.gather(*tasks)
        return got

    got = asyncio.run(run())
    assert got[:200] == got[200:] and 20 <= got[:200].count("canary") <= 60 and "shadow" not in got
    assert len(sink.spans) == 400 and sink.spans[0].outputs == {"prediction": ["shadow"]}
    with pytest.raises(NotFound, match="Nothing is live"):
        asyncio.run(split("credit", parts, dict, None, print, sink)(call_of(Batch({}, 1))))


def test_an_endpoint_is_bounded() -> None:
    async def slow(call: Call) -> Answer:
        await asyncio.sleep(0.2)
        return Answer(None)

    async def run() -> None:
        serve = limit(slow, "credit", 1, 0.05)
        with pytest.raises(Busy, match="did not answer"):
            await serve(call_of(None))
        serve = limit(slow, "credit", 1, 5)
        first = asyncio.ensure_future(serve(call_of(None)))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="1 calls under way"):
            await serve(call_of(None))
        await first

    asyncio.run(run())
