"""Metric points move from a row each into packed blocks."""

import math
import struct
import time

import sqlalchemy as sa
from alembic import op

from everloop.store.schema import metadata, metric_blocks

revision = "0003"
down_revision = "0002"
POINT = struct.Struct("<dqd")
BLOCK = 8_192


def upgrade() -> None:
    """Make the blocks' table and pack what is in the old one, series by series."""
    conn = op.get_bind()
    metadata.create_all(conn, tables=[metric_blocks])
    if not sa.inspect(conn).has_table("metric_points"):
        return  # the first migration makes the tables as they are now
    block: list[tuple[float, int, float]] = []
    id = time.time_ns()

    def keep(series: tuple[str, str, str]) -> None:
        nonlocal id, block
        if block:
            times = [point[0] for point in block]
            row = dict(zip(("project", "run", "key"), series, strict=True), id=id, points=len(block), first=min(times), last=max(times))
            conn.execute(metric_blocks.insert().values(**row, data=b"".join(POINT.pack(*point) for point in block)))
            id, block = id + 1, []

    before = None
    for project, run, key, value, special, step, at in conn.execute(
        sa.text("select project, run, key, value, special, step, at from metric_points order by project, run, key, id")
    ):
        if before is not None and ((project, run, key) != before or len(block) == BLOCK):
            keep(before)
        before = (project, run, key)
        number = {None: value, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}[special]
        block.append((at, step, math.nan if number is None else number))
    if before is not None:
        keep(before)
    op.drop_table("metric_points")
