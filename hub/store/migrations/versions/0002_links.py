"""Links between nodes.

Revision: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "links",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("from_node", sa.String(length=36), nullable=False),
        sa.Column("bind", sa.String(length=45), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("to_node", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("to_port", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_links_port")),
        sa.CheckConstraint("to_port BETWEEN 1 AND 65535", name=op.f("ck_links_to_port")),
        sa.ForeignKeyConstraint(
            ["from_node"], ["nodes.id"], name=op.f("fk_links_from_node"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["to_node"], ["nodes.id"], name=op.f("fk_links_to_node"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_links")),
        sa.UniqueConstraint("from_node", "bind", "port", name=op.f("uq_links_from_node_bind_port")),
    )
    with op.batch_alter_table("links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_links_to_node"), ["to_node"], unique=False)


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("links", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_links_to_node"))

    op.drop_table("links")
