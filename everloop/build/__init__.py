"""Pipelines' steps: training, index building, batch scoring."""
