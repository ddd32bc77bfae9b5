"""The recipes that ship inside the package, so that they need no checkout.

a path or a name --recipe_file--> a YAML file
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "recipes"
"""Of the shipped ones; in a checkout links to those of `recipes/`."""


def shipped() -> list[str]:
    """Names of the recipes that ship: their files', without the suffix."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_file(recipe: str | Path) -> Path:
    """The file that is meant.

    Args:
        recipe: A path, or a name of `shipped()` where no file has that path.
    """
    path = Path(recipe)
    if str(path) in shipped() and not path.is_file():
        return FOLDER / f"{path}.yaml"
    return path
