"""`exec`: commands that run at most once and survive the agent.

`journal` keeps what a run is on disk, `starts` remembers which were started, `argv` checks what is
asked for, `wrapper` starts it, `growth` tells when its output grows, `runs` supervises all of them,
`run` serves a stream.
"""
