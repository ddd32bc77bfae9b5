"""What latents cost: time to the first token, speed, FLOPs, memory, bytes on disk.

    base, coprocessors, baselines --the same prompt, in turn--> Cost

What a prompt says does not matter to any of it, so its tokens are drawn at random.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.augment import has_room
from deliberate.core.base import Base
from deliberate.core.cache_file import save
from deliberate.core.errors import TextError
from deliberate.core.memory import within_memory
from deliberate.eval.candidate import Candidate, resized
from deliberate.eval.clock import Spread, in_turn, spread
from deliberate.eval.cost_report import ByLatents, ByThought, Cost, Row
from deliberate.eval.flops import extra_flops
from deliberate.eval.peak import peak_rise
from deliberate.eval.sample import MOST_SEED
from deliberate.eval.subject import Subject, conditions_of

PROMPT_TOKENS = 512
"""Tokens of the prompt where nothing is said, in a base that has twice as many positions."""

BY_LATENTS = (0, 4, 8, 16, 32, 64)
"""Numbers of latents that the first run's kind is timed with."""

THOUGHTS = (4, 8, 16, 32, 64)
"""Numbers of tokens that the base decodes before its answer, for comparison."""

WAY_OUT = "give fewer --prompt-tokens, --dtype bfloat16, or another device"
"""What to do where the memory is too small for one prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSetting:
    """What is asked, and how often."""

    prompt_tokens: int | None = None
    """Tokens of the prompt; none are 512, or half the base's positions if that is less."""

    decoded_tokens: int = 32
    """Tokens decoded after the first one, for the tokens a second and the memory."""

    repeats: int = 5
    """Timed turns, after one that is not timed."""

    seed: int = 0
    """Of the prompt."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        for name in ("prompt_tokens", "decoded_tokens", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed must be from 0 to {MOST_SEED}, got {self.seed}")


Runs = dict[Hashable, Callable[[], object]]
"""What is timed, by what it is."""

Seconds = Mapping[Hashable, list[float]]
"""How long each of them took, a turn each."""


def cost(
    base: Base,
    subjects: Sequence[Subject],
    setting: CostSetting | None = None,
    *,
    on_runs: Callable[[int, int], None] = lambda done, total: None,
) -> Cost:
    """Measure what latents cost beside the base alone, one prompt at a time.

    Controls are left out: they cost what the latents cost.

    Args:
        base: The frozen model.
        subjects: Coprocessors and their baselines; each baseline is measured once.
        setting: What is asked, and how often.
        on_runs: Told of the timed runs done and to do.

    Raises:
        CheckpointError: as in `subject.conditions_of`.
        DeliberateError: the memory is too small for the prompt.
        TextError: the prompt leaves no room for latents and answer in the base's positions.
    """
    setting = setting or CostSetting()
    candidates = _candidates(base, subjects, setting.seed)
    tokens = _prompt_tokens(candidates, setting)
    generator = torch.Generator().manual_seed(setting.seed)
    prompt = torch.randint(base.vocab, (tokens,), generator=generator).to(base.device)
    with within_memory(f"with a prompt of {tokens} tokens", WAY_OUT):
        asked = [_Asked(each, prompt) for each in candidates]
        runs: Runs = {}
        for at, each in enumerate(asked):
            runs |= {(name, at): run for name, run in each.runs(setting.decoded_tokens).items()}
        runs |= _with_other_numbers(asked)
        seconds = in_turn(runs, repeats=setting.repeats, device=base.device, on_runs=on_runs)
        rows = [_row(each, at, setting, seconds) for at, each in enumerate(asked)]
    return Cost(
        device=_named(base.device),
        dtype=str(base.model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        prompt_tokens=tokens,
        decoded_tokens=setting.decoded_tokens,
        repeats=setting.repeats,
        rows=rows,
        by_latents=[
            ByLatents(latents=count, first_token_cached_seconds=_spread(seconds.get(key)))
            for count in BY_LATENTS
            for key in [("latents", count) if count else ("cache", 0)]
        ],
        chain_of_thought=[
            ByThought(
                tokens=count, first_token_cached_seconds=_spread(seconds.get(("thought", count)))
            )
            for count in THOUGHTS
        ],
    )


def _candidates(base: Base, subjects: Sequence[Subject], seed: int) -> list[Candidate]:
    """The base, each subject's coprocessor, and each baseline once."""
    found = [Candidate(name="base", base=base)]
    baselines = {}
    for subject in subjects:
        conditions_of(subject, seed)  # which checks them
        found.append(Candidate.of("latents", base, subject.trained))
        baselines |= {(name, each.id): each for name, each in subject.baselines.items()}
    return found + [Candidate.of(name, base, each) for (name, _), each in baselines.items()]


def _prompt_tokens(candidates: Sequence[Candidate], setting: CostSetting) -> int:
    """How long the prompt is.

    Raises:
        TextError: there is no room for latents and answer after it.
    """
    base = candidates[0].base
    if base.positions is None:
        return setting.prompt_tokens or PROMPT_TOKENS
    places, decoded = max(each.places for each in candidates), setting.decoded_tokens
    room = base.positions - places - decoded
    tokens = setting.prompt_tokens or max(1, min(PROMPT_TOKENS, base.positions // 2, room))
    if tokens > room:
        raise TextError(
            f"{tokens} prompt tokens, {places} latents after them and {decoded} decoded tokens are "
            f"{tokens + places + decoded} and {base.id!r} has {base.positions} positions: ask for "
            "fewer prompt tokens or fewer decoded tokens"
        )
    return tokens


class _Asked:
    """A candidate, and what it made of the prompt."""

    def __init__(self, candidate: Candidate, prompt: Int[Tensor, " token"]) -> None:
        self.candidate, self.prompt = candidate, prompt
        self.plain, self.augmented = candidate.plain(prompt), candidate.augmented(prompt)

    def runs(self, decoded: int) -> dict[str, Callable[[], object]]:
        """What is timed of it, by name."""
        decode = self.candidate.decode
        cached = {"cache": partial(decode, [self.plain], 1)} if self.candidate.reads_caches else {}
        # The last has its latents already, and pays for one token's logits besides.
        last = partial(decode, [self.augmented], decoded + 1)
        return {"text": partial(self.from_text, 1), **cached, "decode": last}

    def from_text(self, tokens: int) -> list[list[int]]:
        """Read the prompt and decode."""
        return self.candidate.decode([self.candidate.augmented(self.prompt)], tokens)

    def bytes_on_disk(self) -> tuple[int, int]:
        """Sizes of the files of the plain and of the augmented cache."""
        with tempfile.TemporaryDirectory() as folder:
            paths = Path(folder, "plain.st"), Path(folder, "augmented.st")
            for cache, path in zip((self.plain, self.augmented), paths, strict=True):
                save(cache, path)
            plain, augmented = (path.stat().st_size for path in paths)
        return plain, augmented


def _with_other_numbers(asked: Sequence[_Asked]) -> Runs:
    """Other numbers of latents from the first coprocessor; the base thinking aloud in tokens."""
    base, first = asked[0].candidate, asked[min(1, len(asked) - 1)].candidate
    plain, tokens, positions = asked[0].plain, len(asked[0].prompt), base.base.positions
    runs: Runs = {}
    if first.trained is not None and first.writer is not None and first.reads_caches:
        for count in BY_LATENTS[1:]:
            writer = resized(first.writer, count)
            if has_room(first.base, writer, tokens):
                trained = dataclasses.replace(first.trained, coprocessor=writer)
                candidate = dataclasses.replace(first, trained=trained)
                runs["latents", count] = partial(candidate.decode, [plain], 1)
    for count in THOUGHTS:
        if positions is None or tokens + count <= positions:
            runs["thought", count] = partial(base.decode, [plain], count + 1)
    return runs


def _row(asked: _Asked, at: int, setting: CostSetting, seconds: Seconds) -> Row:
    candidate, decoded = asked.candidate, setting.decoded_tokens
    trained, writer = candidate.trained, candidate.writer
    cached, of_base = seconds.get(("cache", at)), seconds["cache", 0]
    peak = peak_rise(partial(asked.from_text, decoded + 1), candidate.base.device)
    plain_bytes, augmented_bytes = asked.bytes_on_disk()
    return Row(
        name=candidate.name,
        run=trained.id if trained else None,
        kind=trained.coprocessor.config.kind if trained else None,
        latents=candidate.latents,
        parameters=candidate.parameters,
        extra_flops=extra_flops(candidate.base, writer, asked.plain) if writer else 0,
        first_token_seconds=spread(seconds["text", at]),
        first_token_cached_seconds=_spread(cached),
        extra_seconds=_spread(
            cached and [own - other for own, other in zip(cached, of_base, strict=True)]
        ),
        tokens_per_second=spread([decoded / each for each in seconds["decode", at]]),
        peak_bytes=candidate.weights_bytes + peak,
        cache_bytes=plain_bytes,
        latents_bytes=augmented_bytes - plain_bytes,
    )


def _spread(found: list[float] | None) -> Spread | None:
    return None if found is None else spread(found)


def _named(device: torch.device) -> str:
    """A device, and which card it is."""
    card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{card}"
