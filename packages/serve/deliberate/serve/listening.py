"""The port that is listened at, which is taken before anything slow is imported."""

import socket


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything slow is done.

    Raises:
        OSError: one sentence: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.partition(" (while")[0]  # Python adds the address once more
        raise OSError(
            f"cannot listen at {host}:{port}: {reason.lower()}; choose another with --host and "
            "--port"
        ) from error
