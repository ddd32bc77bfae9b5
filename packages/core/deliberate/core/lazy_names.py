"""A package's names, each imported when it is asked for: to read a record needs no torch.

from deliberate.core import augment --the first time--> deliberate.core.augment is imported
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package that looks up its names in its modules."""

    _homes: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        """What a name stands for, kept for the next time.

        Raises:
            AttributeError: there is none.
        """
        if name not in self._homes:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{self.__name__}.{self._homes[name]}"), name)
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        """Set what is no module that would hide a name: `augment` is a function in `augment.py`."""
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """Those not asked for yet too."""
        return sorted({*super().__dir__(), *self._homes})


def lazily(package: str, homes: Mapping[str, str]) -> None:
    """Have a package import its names when they are asked for.

    Args:
        package: Its name.
        homes: Which of its modules each name is from.
    """
    module = sys.modules[package]
    module.__dict__["_homes"] = homes
    module.__class__ = _Package
