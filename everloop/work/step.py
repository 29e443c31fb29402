"""What a step function is handed: `def train(step: Step) -> dict`."""

from __future__ import annotations

from typing import Any


class Step:
    """One attempt of a step. `params`: pipeline, step and run params merged; `inputs`: results of the steps it comes after, by name.

    `client` is an SDK client that acts as the pipeline; `run` is the tracked run of this attempt (log_params, log_metrics,
    log_metric, log_artifact); `key` is the same at every attempt, for writes that must happen once.
    """

    def __init__(self, task: dict[str, Any], client: Any) -> None:
        self.name: str = task["step"]
        self.params: dict[str, Any] = task["params"]
        self.inputs: dict[str, Any] = task["inputs"]
        self.pipeline: str = task["pipeline"]
        self.attempt: int = task["attempts"]
        self.key = f"{task['run']}/{task['step']}"
        self.client = client
        self.run = client.runs.attach(task["step_run"])

    def log(self, text: str) -> None:
        """Add a line to the step's log (what is printed goes there too)."""
        print(text, flush=True)
