"""Models that only their producer's code can load (pickles, pyfunc, plain callables), each in a process of its own.

The process is a plain Python with a bare environment: no key, no address of this server, no handle of its files. It ends with the server. Whether a
producer is trusted at all is asked before a model comes here (`workspace/models.py`); this file keeps what it runs out of the server's process.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from everloop.core.errors import BadInput, Busy, EverloopError
from everloop.core.limits import ISOLATED_ANSWER_SECONDS, ISOLATED_START_SECONDS
from everloop.core.types import Batch, Predictions
from everloop.engines.base import ISOLATED, Read, engines, formats
from everloop.engines.signature import Signature

PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
"""Variables of the server's environment that the process sees."""


class Child:
    """A model's process: started at once, asked one batch at a time, started again where it died."""

    def __init__(self, files: list[tuple[str, bytes]], how: Mapping[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="everloop-isolated-"))
        for name, data in files:
            path = (self.folder / "model" / name).resolve()
            if not path.is_relative_to(self.folder.resolve()):
                raise BadInput(f"The file name {name!r} leads out of the model.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.how, self._lock = dict(how), threading.Lock()
        self.process = self._start()
        self._end = weakref.finalize(self, _end, [self.process], self.folder)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one message and wait for its answer. BadInput with what the model raised; Busy where it takes too long, or died."""
        with self._lock:
            if self.process.poll() is not None:
                self.process = self._start()
                self._end.detach()
                self._end = weakref.finalize(self, _end, [self.process], self.folder)
            return self._talk(self.process, message, ISOLATED_ANSWER_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        root = str(Path(__file__).parents[2])
        env |= {"PYTHONPATH": os.pathsep.join([root, *(p for p in sys.path if p and "site-packages" in p)]), "HOME": str(self.folder)}
        env |= {"TMPDIR": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "EVERLOOP_ISOLATED": "1"}
        said = (self.folder / "said.txt").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "everloop.engines.isolated_child", str(self.folder / "model"), orjson.dumps(self.how).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=env,
            cwd=self.folder,
            close_fds=True,
            start_new_session=True,
        )
        said.close()
        try:
            self._talk(process, {"hello": True}, ISOLATED_START_SECONDS)
        except EverloopError:
            process.kill()
            process.wait()
            raise
        return process

    def _talk(self, process: subprocess.Popen[bytes], message: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        body = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            process.stdin.write(len(body).to_bytes(8, "big") + body)
            process.stdin.flush()
            until = time.monotonic() + seconds
            size = int.from_bytes(_read(process, 8, until), "big")
            answer: dict[str, Any] = orjson.loads(_read(process, size, until))
        except (OSError, EOFError) as error:
            process.kill()
            process.wait()
            tail = (self.folder / "said.txt").read_bytes()[-1500:].decode("utf-8", "replace").strip()
            raise BadInput(f"The model's process ended: {tail or error}.", "Does it need a package that is not installed here?") from error
        except TimeoutError:
            process.kill()
            process.wait()
            raise Busy(f"The model did not answer within {seconds:.0f} s; its process was ended.", "Ask for fewer rows at a time.") from None
        if "error" in answer:
            raise BadInput(f"The model raised {answer['error']}")
        return answer


def _read(process: subprocess.Popen[bytes], size: int, until: float) -> bytes:
    """Exactly that many bytes of the process's answer; TimeoutError after `until`, EOFError where it ended."""
    assert process.stdout is not None
    handle, found = process.stdout.fileno(), b""
    while len(found) < size:
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(handle, min(size - len(found), 1 << 20))
        if not piece:
            raise EOFError("it closed its output")
        found += piece
    return found


def _end(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    for process in processes:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


class IsolatedPredictor:
    """A model's process behind the predictor's shape."""

    fast = False

    def __init__(self, child: Child, signature: Signature) -> None:
        self.child, self.signature = child, signature

    def predict(self, batch: Batch) -> Predictions:
        """What the model answers, column by column: `prediction`, and `probability_<class>` where it gives them."""
        columns = {column.name: list(batch.columns[column.name]) for column in self.signature.inputs}
        dtypes = {column.name: column.dtype for column in self.signature.inputs}
        found = self.child.ask({"columns": columns, "dtypes": dtypes, "n": batch.n})["columns"]
        for name, values in found.items():
            if len(values) != batch.n:
                raise BadInput(f"The model answered {len(values)} values of {name} for {batch.n} rows.", "It must answer one a row.")
        return Predictions(found, batch.n)


@engines.add(ISOLATED)
def load(manifest: Mapping[str, Any], read: Read) -> IsolatedPredictor:
    """The manifest's files in a process of their own."""
    files = [(str(file["path"]), read(str(file["digest"]))) for file in manifest["files"]]
    return IsolatedPredictor(Child(files, manifest["loader"]), Signature.from_json(manifest.get("signature") or {}))


@formats.add("pyfunc")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """A model that MLflow's client logged and that only its own code loads; its columns must be told by a signature."""
    return _described(found, {"how": "mlflow"})


@formats.add("callable")
def describe_callable(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """A plain Python callable in a cloudpickle: it is given a pandas DataFrame, and answers one value (or one dict of values) a row."""
    paths = [str(file["path"]) for file in found["files"] if str(file["path"]).endswith(".pkl")]
    if len(paths) != 1:
        raise BadInput("A callable is one file that ends in .pkl.", "Register it with client.models.put(NAME, function, sample=ROWS).")
    return _described(found, {"how": "callable", "path": paths[0]})


def pickled(found: Mapping[str, Any], path: str) -> dict[str, Any]:
    """An estimator in a pickle: as a safe file would have it, but loaded in a process of its own."""
    return _described(found, {"how": "estimator", "path": path})


def _described(found: Mapping[str, Any], loader: dict[str, Any]) -> dict[str, Any]:
    from everloop.engines.skops import tasked

    if not found.get("signature"):
        raise BadInput("It is not known which columns the model reads.", "Log it with a signature or an input_example, or give a sample.")
    outputs = found["signature"].get("outputs") or [{"name": "prediction", "type": "number"}]
    if found.get("classes"):
        made = tasked(found["classes"], found["signature"])
    else:
        made = {"task": found.get("task") or "other", "classes": [], "positive": None, "signature": {**found["signature"], "outputs": outputs}}
    return {"engine": ISOLATED, "loader": loader, **made}
