"""A package's names are imported when they are asked for, and no module hides one."""

from importlib import import_module
from types import ModuleType

import pytest


@pytest.mark.parametrize("package", ["deliberate.core", "deliberate.eval"])
def test_every_name_is_what_its_module_has(package):
    module = import_module(package)
    assert {*module.__all__} == {*module._homes}
    assert {*module.__all__} <= {*dir(module)}
    for name, home in module._homes.items():
        found = getattr(import_module(f"{package}.{home}"), name)
        assert getattr(module, name) is found
        assert not isinstance(found, ModuleType)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_a_function_is_not_hidden_by_the_module_of_its_name():
    import_module("deliberate.core.augment")
    from deliberate.core import augment

    assert callable(augment)
