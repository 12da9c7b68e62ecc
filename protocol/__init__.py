"""The wire between hub, agents and clients: frames, messages and the multiplexer.

Everything but `protocol.aio` is free of I/O, clocks and logging: bytes and `now` go in, bytes,
events and the next deadline come out. `SPEC.md` beside this file is the specification; code cites
its sections.
"""
