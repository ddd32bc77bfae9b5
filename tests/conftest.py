"""Tiny bases of every proved family, made from configurations: nothing is downloaded."""

import shutil
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    Starcoder2Config,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor, coprocessor_config
from deliberate.core.kinds import build

VOCABULARY = 67
WINDOW = 7
_SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    # Default initialisation hardly notices positions: no proof would fail where it should.
    "initializer_range": 0.3,
}
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZE),
    "qwen3": lambda: Qwen3Config(**_SIZE),
    "mistral": lambda: MistralConfig(**_SIZE, sliding_window=WINDOW),
    "gemma2": lambda: Gemma2Config(
        **_SIZE,
        sliding_window=WINDOW,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
        query_pre_attn_scalar=8,
        attn_implementation="eager",
    ),
    "qwen2": lambda: Qwen2Config(**_SIZE),
    "gemma3_text": lambda: Gemma3TextConfig(
        **_SIZE | {"initializer_range": 0.1},
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
    ),
    "phi3": lambda: Phi3Config(**_SIZE | {"initializer_range": 0.2}, sliding_window=WINDOW),
    "gpt_neox": lambda: GPTNeoXConfig(
        **_SIZE, rotary_pct=0.5, hidden_dropout=0.1, attention_dropout=0.1
    ),
    "olmo2": lambda: Olmo2Config(**_SIZE),
    "smollm3": lambda: SmolLM3Config(**_SIZE, no_rope_layers=[1, 0]),
    "granite": lambda: GraniteConfig(
        **_SIZE,
        embedding_multiplier=2.0,
        logits_scaling=1.5,
        residual_multiplier=0.7,
        attention_multiplier=0.3,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    ),
}

MORE: dict[str, Callable[[], PreTrainedConfig]] = {
    "olmo3": lambda: Olmo3Config(
        **_SIZE, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma4_text": lambda: transformers.Gemma4TextConfig(  # the oldest allowed has none
        **_SIZE | {"initializer_range": 0.2},
        global_head_dim=8,
        hidden_size_per_layer_input=0,
        num_kv_shared_layers=0,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "cohere2": lambda: Cohere2Config(
        **_SIZE,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        logit_scale=0.5,
    ),
    "mixtral": lambda: MixtralConfig(**_SIZE, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **_SIZE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "phi": lambda: PhiConfig(**_SIZE, partial_rotary_factor=0.5),
    "starcoder2": lambda: Starcoder2Config(**_SIZE, sliding_window=WINDOW),
    "glm4": lambda: Glm4Config(**_SIZE),
    "exaone4": lambda: Exaone4Config(
        **_SIZE, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
}
"""Families that the three proofs alone are run on."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, and one for the end of a text."""
    letters = string.ascii_letters + string.digits + " .\n"
    vocabulary = {"<end>": 0, "<unk>": 1, **{c: i + 2 for i, c in enumerate(letters)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>", unk_token="<unk>"
    )


def tiny_base(family: str, *, name: str = "") -> Base:
    """A random base of a family, always the same one."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config((FAMILIES | MORE)[family]())
    for parameter_name, parameter in model.named_parameters():
        if "wpe" in parameter_name or "norm" in parameter_name or "ln_" in parameter_name:
            torch.nn.init.normal_(parameter, mean=1.0 * ("bias" not in parameter_name), std=0.3)
    return Base(model=model, tokenizer=tiny_tokenizer(), id=name or family, fingerprint=family)


def tiny_coprocessor(
    base: Base, start: str, *, latents: int = 3, kind: str = "full", **settings: Any
) -> Coprocessor:
    """A random coprocessor, away from its start so that every weight matters."""
    torch.manual_seed(2)
    config = coprocessor_config(start=start, kind=kind, latents=latents, **settings)
    coprocessor = build(config, base)
    with torch.no_grad():
        for parameter in coprocessor.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return coprocessor


@pytest.fixture(scope="session", params=list(FAMILIES))
def base(request: pytest.FixtureRequest) -> Base:
    """A tiny base of each family."""
    return tiny_base(request.param)


@pytest.fixture(scope="session", params=["llama", "gemma2", "gpt2"])
def unlike_base(request: pytest.FixtureRequest) -> Base:
    """Tiny bases that differ most, for what is made of the proved parts.

    One is plain, one has a window, softcaps and a scaled embedding, one absolute positions.
    """
    return tiny_base(request.param)


@pytest.fixture(scope="session", params=[*FAMILIES, *MORE])
def any_base(request: pytest.FixtureRequest) -> Base:
    """A tiny base of each family, and of more; of those that this version of transformers has."""
    if request.param not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {request.param}")
    return tiny_base(request.param)


@pytest.fixture
def proved() -> tuple[set[str], set[str]]:
    """The families that all tests are run on, and those that the three proofs alone are."""
    return set(FAMILIES), set(MORE)


@pytest.fixture(scope="session")
def llama() -> Base:
    """A tiny Llama, for what does not depend on the family."""
    return tiny_base("llama")


@pytest.fixture(params=["paper", "warm"])
def start(request: pytest.FixtureRequest) -> str:
    """Starting points that differ in all they say; `thought` is a mix of both, proved apart."""
    return request.param


@pytest.fixture
def save_base(tmp_path: Path) -> Callable[[str], Path]:
    """Write a tiny base of a family as files."""

    def save(family: str) -> Path:
        base, folder = tiny_base(family), tmp_path / f"tiny-{family}"
        base.model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def llama_folder(save_base: Callable[[str], Path]) -> Path:
    """The tiny Llama as files."""
    return save_base("llama")


@pytest.fixture
def make() -> Callable[..., Coprocessor]:
    """Make a tiny coprocessor for a base and a start."""
    return tiny_coprocessor


@pytest.fixture
def disk(tmp_path: Path):
    """Mounts small disks, until the end of the test; skips it where that cannot be."""
    from small_disk import NotMountedError, SmallDisk

    mounted: list[SmallDisk] = []

    def disk(size: int):
        try:
            mounted.append(SmallDisk(tmp_path / f"disk-{len(mounted)}", size=size))
        except NotMountedError as error:
            pytest.skip(str(error))
        return mounted[-1]

    yield disk
    for each in mounted:
        each.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A stand-in of the Hub on the loopback interface, for the client in this process too.

    Clients in other processes take `hub.environment(folder)`.
    """
    from hub_answers import hub_stand_in
    from hub_stand_in import TOKEN
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_stand_in() as running:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        yield running


class Clock:
    """A module `time` that notes how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nobody waits before asking the Hub again, neither here nor in the Hub's client."""
    clock = Clock()
    for module in (
        "deliberate.core.patience",
        "huggingface_hub.utils._http",
        "huggingface_hub.file_download",
    ):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock


@pytest.fixture
def storages():
    """Makes an account of the memory that tensors take."""
    from storages import Storages

    return Storages


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """A browser of this machine, driven by its own driver; nothing is downloaded."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    # Named, so that selenium looks for none elsewhere.
    service = webdriver.ChromeService(executable_path=driver)
    running = webdriver.Chrome(options=options, service=service)
    yield running
    running.quit()
