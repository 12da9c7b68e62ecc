"""Alembic's migrations of the hub's database; `upgrade` runs them when a store opens."""
