"""Alembic's entry: runs the revisions on the connection that `Database.upgrade` holds."""

from alembic import context

from distributor.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
