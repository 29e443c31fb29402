"""Evaluation data sets and scorers of MLflow's clients."""

from alembic import op

from everloop.store.schema import eval_sets, scorer_configs, scorers

revision = "0004"
down_revision = "0003"
TABLES = (eval_sets, scorers, scorer_configs)


def upgrade() -> None:
    """Make the tables, where the first migration did not make them already."""
    for table in TABLES:
        table.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop the tables."""
    for table in TABLES:
        table.drop(op.get_bind(), checkfirst=True)
