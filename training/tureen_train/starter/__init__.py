"""The packaged starter artifacts: what trains them, and how they are installed."""
