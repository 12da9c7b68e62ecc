"""Published services.

Revision: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "published_services",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("scheme", sa.String(length=8), nullable=False),
        sa.Column("verify", sa.Boolean(), nullable=False),
        sa.Column("host_name", sa.String(length=253), nullable=True),
        sa.Column("keep_host", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint(
            "scheme IN ('http', 'https')", name=op.f("ck_published_services_scheme")
        ),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["nodes.id"],
            name=op.f("fk_published_services_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_published_services")),
        sa.UniqueConstraint("host_name", name=op.f("uq_published_services_host_name")),
    )
    with op.batch_alter_table("published_services", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_published_services_node_id"), ["node_id"], unique=False
        )


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("published_services", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_published_services_node_id"))

    op.drop_table("published_services")
