"""Benchmarks against peers and bare reference programs: `make bench`.

Every figure is a median of alternating rounds in one run and is shown as a ratio, because machines
are shared and noisy; nothing here is asserted by a test. Everything listens on 127.0.0.1 only, and
every load is bounded in time and count. `docs/benchmarks.md` explains the tables.
"""
