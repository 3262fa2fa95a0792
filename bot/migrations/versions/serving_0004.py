"""Which adapter serves, since when, and after which; which reviews ask one at present."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column("adapters", sa.Column("predecessor", sa.Text(), nullable=True))
    op.add_column("adapters", sa.Column("served_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("adapters", sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_adapters_serving",
        "adapters",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'serving'"),
        postgresql_where=sa.text("state = 'serving'"),
    )
    op.create_index(
        "ix_reviews_running",
        "reviews",
        ["adapter"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_reviews_running", table_name="reviews")
    op.drop_index("ix_adapters_serving", table_name="adapters")
    op.drop_column("adapters", "retired_at")
    op.drop_column("adapters", "served_at")
    op.drop_column("adapters", "predecessor")
