"""The `mooring` command: `main` starts it, `menu` names the subcommands, one module each."""

import sys

# httpx brings a command line of its own and with it all of Rich: a quarter of our time to start.
# None in sys.modules means "not installed" (importlib), for which httpx is prepared.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
