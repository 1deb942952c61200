"""Label files without a server: with an engine in this process, or with many engines on a Ray cluster."""
