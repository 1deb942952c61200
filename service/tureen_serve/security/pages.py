"""What a browser loads before it has a key: the playground's page and files. They are the same on every server."""

FILES = "/playground/"


def asks_page(path: str, accept: str) -> bool:
    """Tell whether a request is for the playground. Only browsers name ``text/html`` in ``Accept``.

    Args:
        accept: the header; empty if there is none.
    """
    return path.startswith(FILES) or (path == "/" and "text/html" in accept)
