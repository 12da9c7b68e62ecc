"""Who may call the hub: users, browser sessions, API tokens, tickets; see `accounts.py`."""
