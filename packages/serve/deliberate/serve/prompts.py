"""Prompts as requests give them, to token ids: texts, tokens, conversations."""

import torch
from jinja2 import TemplateError
from torch import Tensor

from deliberate.core.augment import encode
from deliberate.core.base import Base
from deliberate.core.errors import DeliberateError
from deliberate.serve.refusals import ApiError
from deliberate.serve.wire import Message, Prompt


def prompts(
    base: Base, prompt: Prompt | None, *, further: bool, field: str = "prompt"
) -> list[Tensor]:
    """Each prompt's tokens.

    Args:
        base: Whose tokens they are.
        prompt: A text, several, one prompt's tokens, or several prompts' tokens.
        further: They follow a stored cache: no start token, and they may be empty.
        field: Of the request, that holds them.

    Raises:
        ApiError: 400: empty, not Unicode, or a number that is no token.
    """
    if prompt is None and not further:
        raise ApiError(400, f"{field!r} is missing", param=field, code="missing_parameter")
    if prompt is None or isinstance(prompt, str):
        return [text_tokens(base, prompt or "", further=further, field=field)]
    if not prompt:
        raise ApiError(400, f"{field!r} is an empty list: give at least one", param=field)
    if isinstance(prompt[0], int):
        return [_checked(base, prompt, field)]
    if isinstance(prompt[0], str):
        return [text_tokens(base, str(text), further=further, field=field) for text in prompt]
    return [_checked(base, one, field) for one in prompt]


def count(prompt: Prompt | None) -> int:
    """How many prompts are given, before any of them is looked into."""
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):
        return 1
    return len(prompt)


def text_tokens(base: Base, text: str, *, further: bool, field: str) -> Tensor:
    """A text's tokens, however many; of none, where it follows another, none.

    Raises:
        ApiError: 400: the text is empty or not Unicode.
    """
    if further and not text:
        return torch.empty(0, dtype=torch.long, device=base.device)
    try:
        return encode(base, text, further=further)
    except DeliberateError as error:
        raise ApiError(400, str(error), param=field) from error


def conversation(base: Base, messages: list[Message], *, asks: bool) -> Tensor:
    """A conversation's tokens by the tokenizer's chat template.

    Args:
        base: Whose template it is.
        messages: The turns so far.
        asks: Whether the model's turn begins at the end.

    Raises:
        ApiError: 400: there is no template, or it refuses these messages.
    """
    if not base.tokenizer.chat_template:
        raise ApiError(
            400,
            "this model has no chat template: ask /v1/completions with a text",
            param="messages",
            code="no_chat_template",
        )
    turns = [message.plain() for message in messages]
    try:
        text = base.tokenizer.apply_chat_template(turns, add_generation_prompt=asks, tokenize=False)
    except (TemplateError, TypeError, KeyError) as error:
        raise ApiError(
            400, f"the model's chat template refuses these messages: {error}", param="messages"
        ) from error
    # A template writes its own start token.
    return text_tokens(base, str(text), further=True, field="messages")


def _checked(base: Base, token_ids: object, field: str) -> Tensor:
    assert isinstance(token_ids, list)
    for token in token_ids:
        if not 0 <= token < base.vocab:
            raise ApiError(
                400,
                f"{token} is no token of this model: they go from 0 to {base.vocab - 1}",
                param=field,
            )
    return torch.tensor(token_ids, dtype=torch.long, device=base.device)
