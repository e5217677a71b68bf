"""Runs migrations on the engine that the job gives."""

from __future__ import annotations

from alembic import context

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
