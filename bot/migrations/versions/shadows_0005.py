"""What an adapter in the shadow would have said."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "shadows",
        sa.Column("review", sa.Text(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["review"], ["reviews.id"], name=op.f("fk_shadows_review_reviews"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("review", name=op.f("pk_shadows")),
    )
    op.create_index("ix_shadows_adapter", "shadows", ["adapter"], unique=False)


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_shadows_adapter", table_name="shadows")
    op.drop_table("shadows")
