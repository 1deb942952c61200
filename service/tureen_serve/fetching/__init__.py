"""Fetching: bring models from stores, web servers and the hub into folders of this machine, verified and as a whole."""
