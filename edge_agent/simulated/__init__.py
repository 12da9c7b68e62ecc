"""Thousands of agents in a few processes, for load tests of one's own hub.

The rule it guards: what the hub sees is real (keys, joins, certificates, TLS, frames, reconnects);
what a node would do is not. A command is answered at once and never run; every other kind that the
hub opens is refused.

    orders.py    what the command line tells a process, and what that says back
    likeness.py  what a simulated node says of itself
    agent.py     one of them
    fleet.py     a process full of them
"""
