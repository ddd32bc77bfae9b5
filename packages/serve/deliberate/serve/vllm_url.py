"""The address of a vLLM server."""

from urllib.parse import SplitResult, urlsplit


def checked_url(url: str) -> SplitResult:
    """An address taken apart.

    Raises:
        ValueError: it is none of a server, or holds a user's name or password.
    """
    if "@" in url:  # not shown: what stands before it is secret
        raise ValueError("engine_url must hold no user name or password: give a key instead")
    try:
        parts = urlsplit(url.rstrip("/"))
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        right = False
    if not right or parts.query or parts.fragment:
        raise ValueError(f"engine_url must be like http://host:8000, got {url!r}")
    return parts
