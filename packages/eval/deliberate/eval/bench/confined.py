"""Runs a program from standard input under limits; started as a script by `sandbox.py`.

It imports nothing but the standard library, since it runs without the workspace on its path.
"""

import builtins
import os
import resource
import shutil
import signal
import sys
from types import ModuleType

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
        "_exit chmod chown lchown fork forkpty system putenv chroot link symlink"
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


def run(program: str) -> None:
    """Run a program to its last line, as a module that is imported: its tests stand at the end.

    Raises:
        SystemExit: it ended before; with a failure, whatever it said itself.
    """
    module = ModuleType("generated")  # not the main one, which often ends by an exit
    sys.modules[module.__name__] = module
    try:
        exec(compile(program, "<generated>", "exec"), vars(module))  # it is what we run
    except SystemExit as early:
        raise SystemExit(1) from early


if __name__ == "__main__":
    text = sys.stdin.read()
    confine()
    run(text)
