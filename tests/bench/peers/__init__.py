"""How each peer is installed, started, spoken to and stopped."""
