"""What requests may hold: OpenAI's fields, and ours.

    JSON --parse--> CompletionRequest | ChatRequest | CacheRequest | CompareRequest

Null is the same as nothing. Fields of OpenAI's that would change the answer and that are not
done here are refused by name; all others that are unknown are ignored.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deliberate.serve.refusals import ApiError

Mode = Literal["auto", "wait", "never"]

Item = TypeVar("Item")

Many = Annotated[list[Item], Field(fail_fast=True)]
"""A list that may be as long as the body: it is wrong with its first wrong item, or millions of
wrong ones would each be told of, in gigabytes."""

MOST_LOGPROBS = 20
MOST_STOPS = 4

# What each refused field may hold without changing the answer.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "prompt_embeds": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "web_search_options": (),
}

_HARMLESS_IN_MESSAGES: dict[str, tuple[Any, ...]] = {"function_call": (), "tool_calls": ([],)}
"""The same of each message: clients send null for what they do not use."""


Stop = Annotated[str, Field(min_length=1)]
"""A text that ends an answer."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """What a stream tells besides its text."""

    include_usage: bool | None = None
    """Whether a last event counts tokens."""


class _Asked(_Strict):
    model: str | None = None
    """Checked where it is given."""

    cache: str | None = None
    """A stored cache to go on from."""

    deliberate: Mode | None = None
    """Whether latents are used if they are ready, waited for, or not used."""


class _Sampled(_Asked):
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[
        Stop | Annotated[Many[Stop], Field(max_length=MOST_STOPS)] | None,
        Field(description=f"a text or at most {MOST_STOPS}, none of them empty"),
    ] = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    """Whether each choice tells its tokens' ids, as vLLM has it."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        stop = self.stop or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def counts_usage(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


Prompt = str | Many[str] | Many[int] | Many[Many[int]]


class CompletionRequest(_Sampled):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[
        Prompt | None,
        Field(description="a text, a list of texts, a list of token ids, or a list of such lists"),
    ] = None
    """A text, several, or tokens; with `cache`, what follows it."""

    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    """How many alternatives are told of each token."""


class Part(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn of a conversation."""

    role: str
    content: str | Many[Part] | None = None

    def plain(self) -> dict[str, str]:
        """The turn as a chat template takes it."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return {"role": self.role, "content": content}


Messages = Annotated[Many[Message], Field(min_length=1)]


class ChatRequest(_Sampled):
    """The body of `POST /v1/chat/completions`."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class CacheRequest(_Strict):
    """The body of `POST /v1/caches`."""

    model: str | None = None
    text: str | None = None
    messages: Messages | None = None
    deliberate: Mode | None = None


class CompareRequest(_Asked):
    """The body of `POST /v1/compare`."""

    prompt: Annotated[
        str | Many[int] | None, Field(description="a text or a list of token ids")
    ] = None
    answer: Annotated[
        str | Annotated[Many[int], Field(min_length=1)],
        Field(description="a text or a list of at least one token id"),
    ]
    """What follows the prompt, whose tokens are scored."""


Asked = TypeVar("Asked", bound=_Strict)


def parse(model: type[Asked], body: dict[str, Any]) -> Asked:
    """Check a request's fields.

    Raises:
        ApiError: 400, naming the first field that is wrong or that is not done here.
    """
    _check_done_here(body, _HARMLESS)
    try:
        asked = model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        name = str(found["loc"][0]) if found["loc"] else None
        code = "missing_parameter" if found["type"] == "missing" else "invalid_value"
        rule = model.model_fields[name].description if name in model.model_fields else None
        raise ApiError(400, _sentence(found, name, rule), param=name, code=code) from error
    for message in getattr(asked, "messages", None) or ():
        _check_done_here(message.model_extra or {}, _HARMLESS_IN_MESSAGES, within="messages")
    return asked


def _check_done_here(
    given: dict[str, Any], harmless: dict[str, tuple[Any, ...]], *, within: str = ""
) -> None:
    """Refuse a field that would change the answer and is not done here.

    Raises:
        ApiError: 400, naming it.
    """
    for name, values in harmless.items():
        value = given.get(name)
        if value is not None and value not in values:
            what = f"{name!r} in {within!r}" if within else repr(name)
            raise ApiError(
                400,
                f"{what} is not supported here: leave it out",
                param=within or name,
                code="unsupported_parameter",
            )


def _sentence(found: Any, name: str | None, rule: str | None) -> str:
    """What is wrong with a field, in one sentence; the rule is of one that may be of many kinds."""
    if found["type"] == "missing":
        *places, field = found["loc"]
        return f"{field!r} is missing" + (f" in {name!r}" if places else "")
    if found["type"] == "too_short" and rule is None:
        return f"{name!r} is an empty list: give at least one"
    message, given = found["msg"], repr(found["input"])
    given = given if len(given) <= 40 else f"{given[:40]}…"
    if rule is not None:
        return f"{name!r} must be {rule}, got {given}"
    return f"{name!r}: {message[0].lower()}{message[1:]}, got {given}"
