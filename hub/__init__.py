"""The hub: accepts tunnels, keeps state, decides, serves the API and the pages."""
