"""Train `nano`, the small base model that ships inside the package: `make nano` runs this.

    installed Python source --> byte-level BPE --> Llama of 1.2 M parameters

The corpus is the source found on this machine, so another machine makes a sister and not
a twin; `corpus.json` beside the model says what was read. Measured runs: `docs/log.md`.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from deliberate.core.packing import pack
from deliberate.core.texts import documents

SEED = 17
VOCABULARY = 2048
POSITIONS = 1024
END = "<|endoftext|>"

# Words with their leading space, single digits, punctuation, line ends with the blanks
# before them, and runs of blanks (indentation) that leave the last one to the next word.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[ \t]*[\r\n]+|\s+(?!\S)|\s+"


def main() -> None:
    """Train the tokenizer and the model, and write them to the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--source", default="installed", help="corpus, as in a recipe's data.train")
    parser.add_argument(
        "--steps", type=int, default=1600, help="optimizer steps of 16 x 1,024 tokens"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: needs a C++ compiler"
    )
    options = parser.parse_args()

    texts = documents(options.source, split="train").shuffle(seed=SEED)
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(options.output)
    model = train_model(texts, tokenizer, options)
    model.config.use_cache = True  # the trainer turned it off
    model.to(torch.bfloat16).save_pretrained(options.output)
    sizes = Counter()
    for name, text in zip(texts["name"], texts["text"], strict=True):
        sizes["/".join(name.split("/")[:2]) if name.startswith("site-") else "stdlib"] += len(text)
    (options.output / "corpus.json").write_text(json.dumps(dict(sizes.most_common()), indent=1))


def train_tokenizer(texts: Dataset) -> PreTrainedTokenizerFast:
    """A byte-level BPE over `texts`; every text begins with the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (row["text"] for row in texts.select(range(min(2500, len(texts))))), trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def train_model(
    texts: Dataset, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace
) -> LlamaForCausalLM:
    """Pretrain on packed texts; goes on from the last checkpoint in the work folder."""
    set_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=5,
            intermediate_size=384,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    rows = pack(texts, tokenizer, length=POSITIONS).rename_column("token_ids", "input_ids")
    held_out = documents(options.source, split="validation")
    held_out = pack(held_out, tokenizer, length=POSITIONS).rename_column("token_ids", "input_ids")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.work),
            max_steps=options.steps,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            warmup_steps=100,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.02},
            weight_decay=0.1,
            adam_beta2=0.98,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            torch_compile=options.compile,
            logging_steps=50,
            eval_strategy="steps",
            eval_steps=400,
            per_device_eval_batch_size=16,
            save_steps=200,
            save_total_limit=2,
            seed=SEED,
            report_to="none",
        ),
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=collate,
    )
    trainer.train(
        resume_from_checkpoint=get_last_checkpoint(options.work) if options.work.exists() else None
    )
    print(trainer.evaluate())  # noqa: T201
    return model


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Packed rows as a batch whose labels are the tokens themselves."""
    token_ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": token_ids, "labels": token_ids}


if __name__ == "__main__":
    main()
