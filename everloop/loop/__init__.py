"""Monitors, triggers, challenger, canary, promote, replay."""
