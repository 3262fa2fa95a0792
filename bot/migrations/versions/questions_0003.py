"""What the student was asked where it found something, for those who learn from votes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column("findings", sa.Column("question", sa.Text(), nullable=True))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("findings", "question")
