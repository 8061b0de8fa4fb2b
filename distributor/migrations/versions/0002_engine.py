"""The engine: whose journals know what a lease's holder has in hand, which relay an attempt took, chunks held back.

Only adds, with defaults: workers of the version before go on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("chunks", sa.Column("lease_host", sa.Text(), nullable=True))
    op.add_column("chunks", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("issues", sa.Column("hold", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("relay", sa.Text(), nullable=True))
    op.create_table(
        "relay_days",
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("relay", "day", name=op.f("pk_relay_days")),
    )
