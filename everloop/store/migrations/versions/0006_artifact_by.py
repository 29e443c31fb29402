"""Who wrote a file of a run, which decides whether its pickle may be opened."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column, where the first migration did not make it already."""
    if "by" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("run_artifacts")}:
        op.add_column("run_artifacts", sa.Column("by", sa.String(250)))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("run_artifacts", "by")
