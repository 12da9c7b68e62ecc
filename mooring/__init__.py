"""What an operator uses: the command line and the Python SDK over the hub's API."""
