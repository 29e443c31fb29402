"""The real Triton client, unmodified, against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import running_server

pytestmark = pytest.mark.client


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of its own, with the endpoint credit."""
    import asyncio

    from everloop.core.principal import local_principal
    from everloop.core.settings import Settings
    from everloop.workspace.workspace import Workspace
    from tests.protocols.test_oip import make_release

    async def prepare() -> None:
        ws = await Workspace(Settings(home=tmp_path, workers=0, fsync=False)).start()
        who = local_principal()
        await ws.assets.move_alias(who, await make_release(ws), "champion")
        await ws.endpoints.put(who, "credit", "predict", {"release": "credit"})
        await ws.stop()

    asyncio.run(prepare())
    with running_server(tmp_path) as url:
        yield url


def test_triton_in_json_and_in_binary(url: str) -> None:
    import numpy as np
    from tritonclient import http

    client = http.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("credit")
    assert [i["name"] for i in client.get_model_metadata("credit")["inputs"]] == ["a", "b"]
    assert client.get_model_repository_index()[0]["state"] == "READY"
    for binary in (True, False):
        inputs = []
        for name, values in (("a", [1.0, 0.0]), ("b", [0.0, 1.0])):
            tensor = http.InferInput(name, [2, 1], "FP64")
            tensor.set_data_from_numpy(np.asarray(values).reshape(2, 1), binary_data=binary)
            inputs.append(tensor)
        outputs = [http.InferRequestedOutput("prediction", binary_data=binary)]
        assert client.infer("credit", inputs, outputs=outputs).as_numpy("prediction").tolist() == [1, 0]
    with pytest.raises(Exception, match="no endpoint"):
        client.infer("none", inputs)
    client.close()
