"""Load on a server for ``tureen bench``: open loops at a rate, closed loops at a concurrency, and what came back."""
