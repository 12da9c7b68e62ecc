"""What a unit of work and a query get: a connection in a transaction, opaque outside the store."""

from sqlalchemy.ext.asyncio import AsyncConnection as Connection

__all__ = ["Connection"]
