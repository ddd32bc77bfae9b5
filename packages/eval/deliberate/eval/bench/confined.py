"""Runs a program from standard input under limits; started as a script by `sandbox.py`.

It imports nothing but the standard library, since it runs without the workspace on its path.
"""

import builtins
import os
import resource
import shutil
import signal
import sys

LIMITS = {
    resource.RLIMIT_CPU: 5,  # seconds
    resource.RLIMIT_AS: 2 << 30,  # bytes of address space
    resource.RLIMIT_DATA: 2 << 30,
    resource.RLIMIT_FSIZE: 0,  # bytes in any file it writes
    resource.RLIMIT_NOFILE: 32,
    resource.RLIMIT_NPROC: 64,  # does not bind root
    resource.RLIMIT_CORE: 0,
}

# Against accidents: a program that means harm finds another way.
DESTRUCTIVE = {
    os: (
        "remove removedirs rename renames replace rmdir unlink truncate ftruncate kill killpg "
        "chmod chown lchown fork forkpty system putenv chroot link symlink"
    ),
    shutil: "rmtree move chown",
    builtins: "exit quit",
}


def confine() -> None:
    """Lower every limit for good, and take away what destroys."""
    for what, most in LIMITS.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead of killing
    for module, names in DESTRUCTIVE.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)


if __name__ == "__main__":
    program = sys.stdin.read()
    confine()
    exec(compile(program, "<generated>", "exec"), {"__name__": "__main__"})  # it is what we run
