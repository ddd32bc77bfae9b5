"""Failures that the reader of the message can repair; the command line shows them in one line."""


class DeliberateError(Exception):
    """Anything below: the message names the value, the rule and the way out."""


class TextError(DeliberateError):
    """A text or a corpus that cannot be read or used."""


class UnsupportedModelError(DeliberateError):
    """A base model that cannot be augmented, or not as asked."""


class CacheError(DeliberateError):
    """A cache or a cache file that cannot be read, or does not fit the model."""


class CheckpointError(DeliberateError):
    """A coprocessor folder that cannot be read, or does not fit the base."""


class RecipeError(DeliberateError):
    """A recipe that cannot be read."""
