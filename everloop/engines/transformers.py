"""Hugging Face models from a folder with safetensors: text in, label or text out. Weights that are pickles, and code in the folder, are refused."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput, MissingDependency
from everloop.core.labels import label
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.signature import Signature
from everloop.engines.skops import tasked

TASKS = {
    "text-classification": "label",
    "sentiment-analysis": "label",
    "text-generation": "generated_text",
    "summarization": "summary_text",
    "translation": "translation_text",
    "fill-mask": "sequence",
}
"""Pipelines that are served, and what of their answer is the prediction."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


class TransformersPredictor:
    """A pipeline behind the predictor's shape; one call at a time."""

    fast = False

    def __init__(self, pipe: Any, task: str, signature: Signature, classes: list[Any]) -> None:
        self.pipe, self.task, self.signature, self.classes = pipe, task, signature, classes
        self._lock = threading.Lock()

    def predict(self, batch: Batch) -> Predictions:
        """A label with the probability of each, or a text, for each row."""
        texts = ["" if v is None else str(v) for v in batch.columns[self.signature.inputs[0].name]]
        with self._lock:
            found = self.pipe(texts, top_k=None) if self.classes else self.pipe(texts)
        if not self.classes:
            return Predictions({"prediction": [_text(one, TASKS[self.task]) for one in found]}, batch.n)
        scores = [{one["label"]: float(one["score"]) for one in row} for row in found]
        columns: dict[str, Any] = {"prediction": [max(row, key=lambda name: row[name]) for row in scores]}
        columns |= {f"probability_{label(c)}": [row.get(c, 0.0) for row in scores] for c in self.classes}
        return Predictions(columns, batch.n)


def _text(answer: Any, key: str) -> str:
    first = answer[0] if isinstance(answer, list) else answer
    return str(first[key])


@engines.add("transformers")
def load(manifest: Mapping[str, Any], read: Read) -> TransformersPredictor:
    """The manifest's folder as a predictor, on the CPU; nothing is downloaded."""
    try:
        import transformers
    except ImportError:
        raise MissingDependency("transformers", "to serve Hugging Face models", "local") from None
    _safe(manifest)
    task = str(manifest["pipeline"])
    with tempfile.TemporaryDirectory(prefix="everloop-model-") as folder:
        for file in manifest["files"]:
            path = Path(folder, file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read(str(file["digest"])))
        model, tokenizer = _folders(manifest)
        more = {"local_files_only": True, "trust_remote_code": False}
        made = transformers.pipeline(
            task,
            model=transformers.AutoModel.from_pretrained(Path(folder, model), use_safetensors=True, **more)
            if task not in _AUTO
            else getattr(transformers, _AUTO[task]).from_pretrained(Path(folder, model), use_safetensors=True, **more),
            tokenizer=transformers.AutoTokenizer.from_pretrained(Path(folder, tokenizer), **more),
            device="cpu",
        )
    return TransformersPredictor(made, task, Signature.from_json(manifest["signature"]), list(manifest.get("classes") or ()))


_AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "sentiment-analysis": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "summarization": "AutoModelForSeq2SeqLM",
    "translation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
}


@formats.add("transformers")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """A folder with config.json, safetensors and a tokenizer, for one of the text pipelines in TASKS; labels as the config has them."""
    import json

    _safe(found)
    folder, _ = _folders(found)
    config = json.loads(read(next(f["digest"] for f in found["files"] if f["path"] == f"{folder}config.json".removeprefix("./"))))
    task = str((found.get("flavor") or {}).get("task") or found.get("pipeline") or _task(config))
    if task not in TASKS:
        raise BadInput(f"A transformers pipeline {task!r} is not served.", f"Served are: {', '.join(TASKS)}.")
    classes = None
    if TASKS[task] == "label":
        classes = [name for _, name in sorted((config.get("id2label") or {}).items(), key=lambda one: int(one[0]))] or ["LABEL_0", "LABEL_1"]
    made = tasked(classes, {"inputs": [{"name": "text", "type": "string", "required": True}]})
    if classes is None:
        made |= {"task": "text", "signature": {**made["signature"], "outputs": [{"name": "prediction", "type": "string"}]}}
    return {"engine": "transformers", "pipeline": task, **made}


def _task(config: Mapping[str, Any]) -> str:
    """The pipeline that a config's architecture is for; "" where it is not known."""
    architecture = str((config.get("architectures") or [""])[0])
    for ending, task in (
        ("ForSequenceClassification", "text-classification"),
        ("ForCausalLM", "text-generation"),
        ("LMHeadModel", "text-generation"),
        ("ForMaskedLM", "fill-mask"),
    ):
        if architecture.endswith(ending):
            return task
    return ""


def _safe(found: Mapping[str, Any]) -> None:
    paths = [str(file["path"]) for file in found.get("files") or ()]
    if not any(path.endswith(".safetensors") for path in paths):
        raise BadInput("The folder has no safetensors; weights in pickles are not loaded.", "Save it with model.save_pretrained(FOLDER).")
    bad = [path for path in paths if path.endswith((*PICKLES, ".py"))]
    if bad:
        raise BadInput(f"The folder holds pickles or code: {', '.join(bad[:5])}.", "Leave them out: weights as safetensors, and no code of its own.")


def _folders(found: Mapping[str, Any]) -> tuple[str, str]:
    """(folder of the model, folder of the tokenizer), with a slash at the end, "" for the top."""
    paths = [str(file["path"]) for file in found.get("files") or ()]
    configs = sorted((path for path in paths if path.rpartition("/")[2] == "config.json"), key=len)
    if not configs:
        raise BadInput("The folder has no config.json.", "Save it with model.save_pretrained(FOLDER).")
    model = configs[0].removesuffix("config.json")
    tokenizers = sorted((path for path in paths if path.rpartition("/")[2] in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")), key=len)
    if not tokenizers:
        raise BadInput("The folder has no tokenizer.", "Save it too: tokenizer.save_pretrained(FOLDER).")
    return model, tokenizers[0].rpartition("/")[0] + ("/" if "/" in tokenizers[0] else "")
