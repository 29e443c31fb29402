"""Bring a database to the present schema with Alembic, under a lock, from inside the package (no alembic.ini)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from everloop.core.errors import BadInput

FOLDER = Path(__file__).with_name("migrations")
HEAD = "0008"
"""The newest migration; a test keeps it equal to the folder's head."""


def upgrade(engine: sa.Engine) -> None:
    """Upgrade to HEAD. A fresh database gets the present schema at once; a database newer than this everloop is refused."""
    with engine.connect() as conn:
        fresh = not sa.inspect(conn).get_table_names()
        found = None
        if not fresh and sa.inspect(conn).has_table("alembic_version"):
            found = conn.execute(sa.text("select version_num from alembic_version")).scalar()
    if found == HEAD:
        return
    if fresh:
        _create(engine)
        return
    if found is None or not list(FOLDER.glob(f"versions/{found}_*.py")):
        raise BadInput(
            f"The database at {engine.url.render_as_string()} has schema {found!r}, which this everloop does not know.",
            "Was it written by a newer everloop? Upgrade everloop, or point at another database.",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")


def _create(engine: sa.Engine) -> None:
    from everloop.store.schema import metadata

    with engine.begin() as conn:
        metadata.create_all(conn)
        conn.execute(sa.text("create table if not exists alembic_version (version_num varchar(32) not null primary key)"))
        conn.execute(sa.text("delete from alembic_version"))
        conn.execute(sa.text("insert into alembic_version values (:head)"), {"head": HEAD})
