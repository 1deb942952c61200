"""The records of a run: split by prompt, limited, written back. :mod:`tureen.records` reads them."""
