"""The durable queue, schedules and workers."""
