"""Indexes of what is asked for every object and every series.

Without them these questions read whole tables, and the guard slows down as its database grows.

Revision: 0002, after 0001.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("objects", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_objects_series_instance_uid"))
        batch_op.create_index(batch_op.f("ix_objects_study_instance_uid"), ["study_instance_uid"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_objects_series_instance_uid_state"), ["series_instance_uid", "state"], unique=False
        )

    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verdicts_subject"))
        batch_op.create_index(batch_op.f("ix_verdicts_subject_state"), ["subject", "state"], unique=False)
