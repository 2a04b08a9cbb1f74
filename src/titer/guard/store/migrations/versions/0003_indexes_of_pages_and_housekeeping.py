"""Indexes of what the pages, the measures, housekeeping and each destination's worker ask.

Without them a dashboard takes seconds after a year, and what waits for one destination slows down the others.

Revision: 0003, after 0002.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("objects", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_objects_state"))
        batch_op.create_index(
            batch_op.f("ix_objects_state_received_at_size"), ["state", "received_at", "size"], unique=False
        )

    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_modality"), ["modality"], unique=False)

    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verdicts_state"))
        batch_op.create_index(batch_op.f("ix_verdicts_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_verdicts_route"), ["route"], unique=False)
        batch_op.create_index(batch_op.f("ix_verdicts_state_created_at"), ["state", "created_at"], unique=False)

    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_outbox_destination_state_due_at"), ["destination", "state", "due_at"], unique=False
        )
