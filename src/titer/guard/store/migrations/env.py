"""Alembic's entrance: it runs in the connection that `store.migrate` gives."""

from __future__ import annotations

from alembic import context

from titer.guard.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
