"""Alembic environment and revisions of the catalogue; used by `stablequeue.catalogue.schema`."""
