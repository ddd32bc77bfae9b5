"""Loading a base: what is refused, what is frozen, what identifies it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AfmoeConfig,
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    BltConfig,
    DeepseekV3Config,
    DiffLlamaConfig,
    FalconConfig,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GPTJConfig,
    GptOssConfig,
    JetMoeConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    NemotronConfig,
    OPTConfig,
    Qwen3NextConfig,
    StableLmConfig,
    T5Config,
)

from deliberate.core.augment import prefill, tokenize
from deliberate.core.base import Base, base_fingerprint, load_base
from deliberate.core.coprocessor import STARTS, coprocessor_config
from deliberate.core.errors import DeliberateError, TextError, UnsupportedModelError
from deliberate.core.kinds import build
from deliberate.core.structure import check_supported, final_norm

_SIZE = {
    "vocab_size": 67,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

_EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}

REFUSED = {
    "qwen3_next": Qwen3NextConfig,
    "lfm2": lambda: Lfm2Config(num_hidden_layers=4, full_attn_idxs=[2]),
    "mamba": MambaConfig,
    "t5": T5Config,
    "blt": BltConfig,
    "gemma3n_text": Gemma3nTextConfig,
    "stablelm": StableLmConfig,
    "bloom": BloomConfig,
    "gptj": GPTJConfig,
    "falcon": FalconConfig,
    "deepseek_v3": DeepseekV3Config,
    "llama4_text": Llama4TextConfig,
    "bert_as_encoder": lambda: BertConfig(is_encoder_decoder=True),
}


def based(config, llama):
    """A base of a configuration, with random weights."""
    model = AutoModelForCausalLM.from_config(config)
    return Base(model=model, tokenizer=llama.tokenizer, id="tiny")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name_before_any_weight_is_read(name, tmp_path):
    config = REFUSED[name]()
    config.save_pretrained(tmp_path)  # there are no weights to be read
    with pytest.raises(UnsupportedModelError, match=config.model_type):
        load_base(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            GptOssConfig(
                vocab_size=67,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                num_local_experts=2,
                num_experts_per_tok=2,
                max_position_embeddings=4096,
                rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            ),
            "'gpt_oss' has attention sinks",
        ),
        (
            OPTConfig(
                vocab_size=67,
                hidden_size=16,
                word_embed_proj_dim=16,
                ffn_dim=32,
                num_hidden_layers=2,
                num_attention_heads=4,
            ),
            "'opt' keeps its decoder inside another module",
        ),
        (
            Gemma3Config(text_config=_SIZE, vision_config=_EYES),
            "'gemma3' keeps its decoder inside another module",
        ),
        (BertConfig(**_SIZE), "'bert' lets a token see those that come after it"),
        (
            Gemma3TextConfig(**_SIZE, use_bidirectional_attention=True),
            "'gemma3_text' lets a token see those that come after it",
        ),
        (DiffLlamaConfig(**_SIZE), "'diffllama' has differential attention"),
    ],
    ids=["gpt_oss", "opt", "gemma3", "bert", "gemma3_text", "diffllama"],
)
def test_what_only_its_modules_tell_is_refused_before_anything_is_computed(llama, config, told):
    with pytest.raises(UnsupportedModelError, match=told):
        based(config, llama)


def test_a_model_that_keeps_arguments_from_its_attention_is_refused_by_name(llama):
    config = NemotronConfig(
        vocab_size=67,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
    )
    base = based(config, llama)
    coprocessor = build(coprocessor_config(start="paper"), base)
    reading = base.read(torch.tensor([[1, 2, 3]]))
    with pytest.raises(UnsupportedModelError, match="NemotronAttention does not get"):
        coprocessor(reading, torch.tensor([[1]]))


def test_a_model_that_attends_to_other_keys_than_it_caches_is_refused_by_name(llama):
    config = JetMoeConfig(
        vocab_size=67,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_key_value_heads=2,
        kv_channels=8,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    base = based(config, llama)
    coprocessor = build(coprocessor_config(start="paper"), base)
    reading = base.read(torch.tensor([[1, 2, 3]]))
    with pytest.raises(UnsupportedModelError, match="reads 4 heads of keys and caches 2"):
        coprocessor(reading, torch.tensor([[1]]))


def test_a_model_that_views_what_its_attention_gives_as_it_lies_is_read_in_groups(llama):
    config = AfmoeConfig(
        **_SIZE,
        num_key_value_heads=2,
        head_dim=8,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    base = based(config, llama)
    coprocessor = build(coprocessor_config(start="paper", latents=2), base)
    token_ids = torch.arange(9)[None]
    latents = coprocessor(base.read(token_ids), torch.tensor([[3, 5]]))
    for index, anchor in enumerate((3, 5)):
        alone = coprocessor(base.read(token_ids[:, : anchor + 1]), torch.tensor([[anchor]]))
        torch.testing.assert_close(latents[:, index], alone[:, 0])


def test_every_proved_family_is_supported(base):
    check_supported(base.model.config)


def test_a_folder_that_is_no_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DeliberateError, match="cannot load") as caught:
        load_base(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hidden_size": "wide"}, r"'hidden_size' expected int, got str \(value: 'wide'\)"),
        ({"num_attention_heads": 0}, r"cannot be or is not known \(ZeroDivisionError"),
        ({"num_hidden_layers": 0}, "'llama' has no layers"),
        ({"hidden_act": "nothing"}, "KeyError: 'nothing'"),
        ({"pad_token_id": 999}, "Padding_idx must be within"),
        ({"vocab_size": 5}, "its weights have other shapes"),
        ({"quantization_config": {"quant_method": "gptq"}}, "GPTQConfig"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused_in_one_line(llama_folder, changed, told):
    path = llama_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(DeliberateError, match=told) as caught:
        load_base(str(llama_folder))
    assert "\n" not in str(caught.value)


def test_an_unknown_id_without_a_network_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DeliberateError, match="'nobody/nothing'") as caught:
        load_base("nobody/nothing")
    assert "\n" not in str(caught.value)
    with pytest.raises(DeliberateError, match="neither a folder nor a Hub id"):
        load_base("not an id!")


def test_the_fingerprint_is_of_weights_and_architecture_and_not_of_dtype(llama, llama_folder):
    first = load_base(str(llama_folder)).fingerprint
    assert base_fingerprint(str(llama_folder)) == first
    assert load_base(str(llama_folder), dtype=torch.bfloat16).fingerprint == first
    config = json.loads((llama_folder / "config.json").read_text())
    other = {**config, "rms_norm_eps": 1e-3}
    (llama_folder / "config.json").write_text(json.dumps(other))
    assert load_base(str(llama_folder)).fingerprint != first
    (llama_folder / "config.json").write_text(json.dumps({**config, "use_cache": False}))
    assert load_base(str(llama_folder)).fingerprint == first
    with torch.no_grad():
        llama.model.get_input_embeddings().weight[3, 3] += 1
        llama.model.save_pretrained(llama_folder)
        llama.model.get_input_embeddings().weight[3, 3] -= 1
    assert load_base(str(llama_folder)).fingerprint != first


def test_the_copy_has_neither_embedding_nor_head_nor_a_weight_of_the_base(base, start):
    coprocessor = build(coprocessor_config(start=start, latents=2), base)
    names = {name for name, _ in coprocessor.trunk.named_parameters()}
    embedding = {n for n, p in base.trunk.named_parameters() if p.shape == (base.vocab, 16)}
    assert embedding
    assert not names & embedding
    own = {p.data_ptr() for p in base.model.parameters()}
    assert not own & {p.data_ptr() for p in coprocessor.parameters()}
    assert all(p.requires_grad for p in coprocessor.parameters())


def test_the_final_norm_is_found_by_structure(base):
    assert final_norm(base.trunk) in {"norm", "ln_f", "final_layer_norm"}


def test_a_base_with_longrope_reads_as_far_as_positions_are_turned_alike(llama):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4}
    rope |= {"long_factor": [4.0] * 4, "original_max_position_embeddings": 16}
    config = LlamaConfig(
        **_SIZE, head_dim=8, max_position_embeddings=64, initializer_range=0.3, rope_parameters=rope
    )
    base = based(config, llama)
    assert base.positions == 16
    texts = [torch.arange(2, 2 + count) for count in (6, base.positions)]
    alone, together = prefill(base, texts[:1])[0], prefill(base, texts)[0]
    torch.testing.assert_close(together.last_hidden, alone.last_hidden)
    with pytest.raises(TextError, match="reads at most 16"):
        tokenize(base, "a" * 40)


@pytest.mark.parametrize("latents", [1, 64])
def test_any_number_of_latents_from_1_to_64_works(llama, start, latents):
    coprocessor = build(coprocessor_config(start=start, latents=latents), llama)
    reading = llama.read(torch.arange(20)[None])
    assert coprocessor(reading, torch.tensor([[3, 9]])).shape == (1, 2, latents, 16)


def test_latents_stand_and_are_scaled_as_the_start_says():
    assert coprocessor_config(start="paper").positions == "after"
    assert coprocessor_config(start="warm").latent_scale == 16
    assert coprocessor_config(start="thought").positions == "over"
    assert set(STARTS) == {"paper", "warm", "thought"}


def test_weights_that_would_have_to_be_unpickled_are_refused(llama, llama_folder):
    (llama_folder / "model.safetensors").unlink()
    torch.save(llama.model.state_dict(), llama_folder / "pytorch_model.bin")
    with pytest.raises(DeliberateError, match="cannot load"):
        load_base(str(llama_folder))


def test_truncated_weights_are_refused_in_one_line(llama_folder):
    weights = llama_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DeliberateError, match="cannot load"):
        load_base(str(llama_folder))


def test_weights_that_lack_some_are_refused_and_none_are_made_up(llama_folder):
    weights = load_file(llama_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DeliberateError, match=r"lack 1 .*'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_base(str(llama_folder))


def test_a_folder_s_id_means_the_same_from_anywhere(llama_folder, monkeypatch):
    monkeypatch.chdir(llama_folder.parent)
    assert load_base(llama_folder.name).id == str(llama_folder)
