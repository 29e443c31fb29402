"""Suites against releases, statistics, gate decisions."""
