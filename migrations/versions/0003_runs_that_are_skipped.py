"""Whether a run may be skipped, why it was or was not, and what still holds everything."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "backup_runs", sa.Column("if_changed", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("backup_runs", sa.Column("reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("backup_runs", sa.Column("unchanged_id", sa.String(26), nullable=False, server_default=""))


def downgrade() -> None:
    for name in ("unchanged_id", "reason", "if_changed"):
        op.drop_column("backup_runs", name)
