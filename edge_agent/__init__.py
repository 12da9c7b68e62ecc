"""Runs on every node: dials the hub, serves the streams it opens, keeps its own journal."""
