"""The model card of a coprocessor: what it is, what was measured, how to use it.

    config.json + weights + what was measured --> README.md

Every number comes from the run's own files; where a file says nothing, the card says nothing.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from deliberate.core import hub_id
from deliberate.core.base import EMBEDDED
from deliberate.core.card_tables import code, markdown_table, measured, number_of
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import DeliberateError
from deliberate.core.kinds import KINDS
from deliberate.core.local_paths import without_folders
from deliberate.core.redaction import without_secrets
from deliberate.core.run_results import RunResults

PAPER = "2412.17747"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is about."""

    repo: str
    """Hub id under which it is published."""

    config: dict[str, Any]
    """The coprocessor's `config.json`."""

    fingerprint: str
    """The coprocessor's fingerprint."""

    parameters: int
    """Trained weights."""

    dtype: str
    """In which the weights are written."""

    results: RunResults
    """What `deliberate eval` measured."""

    license: str | None = None
    """Under which it is published, as the Hub names it."""


def write_card(subject: Subject) -> str:
    """The whole text of the card, metadata first; `DeliberateError` if the evaluation is odd."""
    parts = [
        f"---\n{_metadata(subject).to_yaml()}\n---",
        f"# {subject.repo.partition('/')[2]}",
        _summary(subject),
        "## How to use it",
        _usage(subject),
        "## What was measured",
        measured(subject.results),
        "## What it is",
        _facts(subject),
        "## How it was trained",
        _training(subject.config["recipe"]),
        "## Licence",
        _licence(subject),
        "## Limitations",
        _limitations(subject),
        "## The method",
        _CITATION,
    ]
    return without_secrets("\n\n".join(parts) + "\n")


def _metadata(subject: Subject) -> ModelCardData:
    base = subject.config["base"]
    on_hub = _on_hub(base)
    return ModelCardData(
        license=subject.license,
        base_model=base["id"] if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        library_name="deliberate",
        pipeline_tag="text-generation",
        tags=["deliberate", "coprocessor", "kv-cache", "latent-reasoning", f"arxiv:{PAPER}"],
    )


def _on_hub(base: dict[str, Any]) -> bool:
    """Whether a base came from the Hub: any other name would link to a stranger's model."""
    try:
        hub_id.parse(base["id"], what="base model", bare=True)
    except DeliberateError:
        return False
    return bool(base["revision"])


def _summary(subject: Subject) -> str:
    if not _kind(subject).writes_latents:
        return (
            f"The language model {_base_name(subject)} trained on without latents, as a baseline "
            "for coprocessors. It is there to be measured, by itself or beside them."
        )
    latents = number_of(subject.config["coprocessor"]["latents"], "latent")
    begun = f"A coprocessor for the frozen language model {_base_name(subject)}: after any text "
    if not _kind(subject).reads_caches:
        return (
            f"{begun}that the model reads, it writes {latents}, which the model reads as if they "
            "were the next input embeddings. It reads what a stored cache does not keep, so it is "
            "there to be measured, and neither augments caches nor decodes."
        )
    return (
        f"{begun}that the model has read, it extends the model's key-value cache by {latents}, "
        "which the model reads as if they were the next input embeddings. Nothing in the model "
        "changes, so it can be used with latents, without them, or with latents written in advance."
    )


def _usage(subject: Subject) -> str:
    base = subject.config["base"]
    name = " ".join(f"path/to/{without_folders(base['id'])}".split())
    argument, option = json.dumps(name, ensure_ascii=False), f"--base {shlex.quote(name)} "
    if base["id"] == EMBEDDED:
        argument, option = "", ""
    elif _on_hub(base):  # the command takes it at the commit that is noted
        argument, option = f'"{base["id"]}"', ""
    if not _kind(subject).reads_caches:
        return f"""```python
from deliberate.core import load_base, load_coprocessor
from deliberate.eval import evaluate

base = load_base({argument})
measured = load_coprocessor("{subject.repo}", base=base)
print(evaluate(base, measured, data="texts.jsonl").to_dict()["change_percent"])
```

```
deliberate eval {subject.repo} {option}--data texts.jsonl
```"""
    return f"""```python
from deliberate.core import Coprocessor, generate, load_base, prefill, tokenize

base = load_base({argument})
coprocessor = Coprocessor.from_pretrained("{subject.repo}", base=base)
print(generate(base, prefill(base, [tokenize(base, "Once")]), coprocessor=coprocessor)[0].text)
```

```
deliberate generate {option}--coprocessor {subject.repo} --prompt "Once"
```"""


def _facts(subject: Subject) -> str:
    settings, base = subject.config["coprocessor"], subject.config["base"]
    kind = settings["kind"]
    writes = _kind(subject).writes_latents
    about = f": {(KINDS[kind].__doc__ or '').splitlines()[0]}" if kind in KINDS else ""
    names = ("soft_input", "latent_norm", "latent_scale", "positions")
    setting = ", ".join(f"`{name}` {code(settings[name])}" for name in names)
    ahead = _section(subject.config["recipe"], "objective").get("ahead")
    trained = ahead if isinstance(ahead, int) else "not recorded"
    facts = [
        f"Base: {_base_name(subject)}{_where(base)}, fingerprint {code(base['fingerprint'])}",
        f"Kind: {code(kind)}{about}",
        f"Latents written after a text (N_L): {settings['latents'] if writes else 'none'}",
        f"Tokens after an anchor that it was trained on (N_A): {trained}",
        *([f"Setting: {setting}"] if writes else []),
        f"Parameters: {subject.parameters:,}, in {subject.dtype}",
        f"Fingerprint: `{subject.fingerprint}`",
    ]
    return "\n".join(f"- {fact}" for fact in facts)


def _kind(subject: Subject) -> type[Coprocessor]:
    """The class of its kind; of one that is not known here, what most kinds are."""
    return KINDS.get(subject.config["coprocessor"]["kind"], Coprocessor)


def _where(base: dict[str, Any]) -> str:
    if _on_hub(base):
        return f" at revision {code(base['revision'])}"
    return "" if base["id"] == EMBEDDED else ", which was a folder and not on the Hub"


def _training(recipe: dict[str, Any]) -> str:
    rows = [
        [f"`{section}.{key}`", code(without_folders(value))]
        for section in ("data", "objective", "train")
        for key, value in _section(recipe, section).items()
        if value is not None
    ]
    if not rows:
        return "The run did not record its recipe."
    return "\n\n".join(
        filter(None, [_reached(recipe), markdown_table([["recipe", "value"], *rows])])
    )


def _reached(recipe: dict[str, Any]) -> str:
    """At which step these weights were kept and what training measured then, if it is told."""
    reached, steps = _section(recipe, "reached"), _section(recipe, "train").get("steps")
    changes = reached.get("change_percent")
    if "step" not in reached or not isinstance(changes, dict):
        return ""
    told = ", ".join(f"token {code(token)} {code(value)} %" for token, value in changes.items())
    return (
        f"These are the weights after step {code(reached['step'])} of {code(steps)}. The run's "
        "own validation, without intervals or controls, then had this change of perplexity against "
        f"the base alone: {told}."
    )


def _licence(subject: Subject) -> str:
    base = f"The licence of {_base_name(subject)} holds for the base, and for what is made of it."
    if subject.license is None:
        return f"No licence was given for these weights: ask before you use them. {base}"
    return f"{code(subject.license)}. {base}"


def _limitations(subject: Subject) -> str:
    latents = number_of(subject.config["coprocessor"]["latents"], "latent")
    if not subject.results:
        known = "It was not evaluated, so it may as well make the model's predictions worse."
    else:
        known = (
            "What was measured holds for the data that is named; other data, tasks, languages and "
            "lengths were not measured, and perplexity does not tell whether answers are right or "
            "safe."
        )
    bound = (
        f"{known} It serves this base and no other: loading it for a base with another "
        "fingerprint is refused."
    )
    if not _kind(subject).writes_latents:
        return f"{bound} It gets wrong, makes up and says what the base may."
    return (
        f"{bound} It costs a pass of its own and takes the room of {latents} in "
        "the cache. Latents cannot be read as text. What the base gets wrong, makes up or says "
        "that it should not, it may still do with latents."
    )


_CITATION = f"""Made with `deliberate`, after [arXiv {PAPER}](https://arxiv.org/abs/{PAPER}):

```bibtex
@misc{{liu2024deliberation,
  title = {{Deliberation in Latent Space via Differentiable Cache Augmentation}},
  author = {{Liu and Pfeiffer and Wu and Xie and Szlam}},
  year = {{2024}},
  eprint = {{{PAPER}}},
  archivePrefix = {{arXiv}}
}}
```"""


def _base_name(subject: Subject) -> str:
    base = subject.config["base"]
    if _on_hub(base):
        return f"[{base['id']}](https://huggingface.co/{base['id']})"
    inside = " (inside the package `deliberate`)" if base["id"] == EMBEDDED else ""
    return f"{code(without_folders(base['id']))}{inside}"


def _section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    section = recipe.get(name)
    return section if isinstance(section, dict) else {}
