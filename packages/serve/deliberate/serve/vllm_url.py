"""The address of a vLLM server."""

from urllib.parse import SplitResult, urlsplit


def checked_url(url: str) -> SplitResult:
    """An address taken apart.

    Raises:
        ValueError: it is none of a server.
    """
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError(f"engine_url must be like http://host:8000, got {url!r}")
    return parts
