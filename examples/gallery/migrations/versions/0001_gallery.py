"""Make all tables of the gallery; there was no release before this one."""

from alembic import op

from examples.gallery.models import Base

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables the models describe."""
    Base.metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Remove them."""
    Base.metadata.drop_all(op.get_bind())
