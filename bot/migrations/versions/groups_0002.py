"""The groups that the bot serves, and where a project's webhook goes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "groups",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("hook", sa.BigInteger(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("verify", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
    )
    op.add_column("projects", sa.Column("url", sa.Text(), nullable=True))
    op.add_column("projects", sa.Column("verify", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("projects", "verify")
    op.drop_column("projects", "url")
    op.drop_table("groups")
