"""Metrics of the node.

`collectors` read them, `sampler` turns counters into rates, `frames` makes the compact records,
`stream` sends them at the rate the hub asks for.
"""
