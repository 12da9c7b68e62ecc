"""The target language: one way to say which nodes, for CLI, API, pages and tasks.

    parse("group:web and not label.env==test")  ->  an expression (`syntax`), cached
    evaluate(expression, nodes, groups)         ->  the nodes it matches, in their order

The grammar is `grammar.lark`; texts are bounded before they are parsed, and errors point at a
column. A name, id or group that does not exist is an error and not an empty answer.
"""

from hub.targets.evaluate import evaluate
from hub.targets.parse import parse
from hub.targets.syntax import Expression

__all__ = ["Expression", "evaluate", "parse"]
