"""What a step function is handed; the class lives in the client, so that users' code can name it as `el.Step`."""

from __future__ import annotations

from everloop.client.pipelines import Step

__all__ = ["Step"]
