"""The base as the harness's model, and the base with latents as our own separate sequences."""

import copy

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from deliberate.core import Sampling, augment, generate, prefill  # noqa: E402
from deliberate.core.errors import DeliberateError  # noqa: E402
from deliberate.core.groups import latent_positions  # noqa: E402
from deliberate.eval.bench.ask import ask, ask_within_memory  # noqa: E402
from deliberate.eval.bench.benchmarks import BENCHMARKS  # noqa: E402
from deliberate.eval.bench.model import LatentLM  # noqa: E402
from deliberate.eval.bench.tasks import quiet, tasks_of  # noqa: E402

TOLERANCE = 2e-5
CONTEXTS = {
    "the cat sat on": [" a mat", " the moon", " x"],
    "what is two and two": [" four", " five and a half"],
    "a": [" b"],
    "to be or not to be that is the": [" question"],
}


def requests(pairs):
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]


def questions(prompts, **settings):
    settings = {"until": ["z"], "do_sample": False, "max_gen_toks": 12, **settings}
    return [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(settings)), idx=0)
        for prompt in prompts
    ]


PAIRS = [(context, after) for context, afters in CONTEXTS.items() for after in afters]


def straight(base, coprocessor, context, continuation):
    """Log-likelihood and greediness by one forward over context, latents and continuation."""
    x, y = (
        base.tokenizer(text, return_tensors="pt")["input_ids"] for text in (context, continuation)
    )
    anchor = torch.tensor([[x.shape[1] - 1]])
    config = coprocessor.config
    with torch.no_grad():
        z = coprocessor(base.read(x), anchor)[0]
        embeds = torch.cat([base.embed(x), z, base.embed(y)], dim=1)
        at = latent_positions(anchor, latents=config.latents, positions=config.positions)[0]
        first = x.shape[1] + (config.latents if config.positions == "after" else 0)
        places = [torch.arange(x.shape[1]), at[0], first + torch.arange(y.shape[1])]
        logits = base.model(
            inputs_embeds=embeds,
            position_ids=torch.cat(places)[None],
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            use_cache=False,
        ).logits[0]
    chances = logits[-y.shape[1] - 1 : -1].log_softmax(-1)
    score = chances.gather(-1, y.T).sum()
    return float(score), bool((chances.argmax(-1) == y[0]).all())


def test_log_likelihoods_are_those_of_one_forward_over_context_latents_and_answer(
    base, start, make
):
    check_one_forward(base, make(base, start), batch=3)


@pytest.mark.parametrize("batch", [1, 16])
def test_log_likelihoods_are_the_same_in_any_batch(llama, start, make, batch):
    check_one_forward(llama, make(llama, start), batch=batch)


@pytest.mark.parametrize("kind", ["lora", "scratch", "soft", "pause"])
def test_any_kind_that_augments_a_cache_is_asked_and_leaves_the_base_alone(kind, make, fresh):
    base = fresh()
    with quiet():
        before = LatentLM(base).loglikelihood(requests(PAIRS))
    check_one_forward(base, make(base, "warm", kind=kind), batch=3)
    with quiet():
        assert LatentLM(base).loglikelihood(requests(PAIRS)) == before


def check_one_forward(base, coprocessor, *, batch):
    with quiet():
        found = LatentLM(base, coprocessor, batch=batch).loglikelihood(requests(PAIRS))
    for pair, (score, greedy) in zip(PAIRS, found, strict=True):
        expected, likeliest = straight(base, coprocessor, *pair)
        assert score == pytest.approx(expected, abs=TOLERANCE * 20)
        assert greedy == likeliest


def test_latents_change_log_likelihoods(llama, make):
    with quiet():
        with_latents = LatentLM(llama, make(llama, "warm")).loglikelihood(requests(PAIRS))
        alone = LatentLM(llama).loglikelihood(requests(PAIRS))
    assert all(abs(a[0] - b[0]) > 1e-3 for a, b in zip(with_latents, alone, strict=True))


def test_a_greedy_answer_is_said_to_be_the_likeliest(llama, make):
    coprocessor, ids = make(llama, "warm"), torch.tensor([5, 9, 30, 4])
    [made] = generate(
        llama, augment(llama, coprocessor, prefill(llama, [ids])), Sampling(max_tokens=3)
    )
    other = [*made.token_ids[:-1], made.token_ids[-1] + 1]
    with quiet():
        found = LatentLM(llama, coprocessor)._loglikelihood_tokens([
            (("", ""), ids.tolist(), after) for after in (made.token_ids, other)
        ])
    assert [greedy for _, greedy in found] == [True, False]


def test_each_context_is_read_once(llama, make, monkeypatch):
    read, coprocessor = [], make(llama, "warm")
    whole = type(llama).read
    monkeypatch.setattr(
        type(llama), "read", lambda base, ids: read.append(len(ids)) or whole(base, ids)
    )
    with quiet():
        LatentLM(llama, coprocessor, batch=2).loglikelihood(requests(PAIRS))
    assert sum(read) == len(CONTEXTS)


def test_answers_are_those_of_generate_after_augment(base, start, make):
    coprocessor, prompts = make(base, start), [*CONTEXTS]
    with quiet():
        model = LatentLM(base, coprocessor, batch=3)
        found = model.generate_until(questions(prompts))
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor(base.tokenizer(prompt)["input_ids"])
        thought = augment(base, coprocessor, prefill(base, [ids]))
        [alone] = generate(base, thought, Sampling(max_tokens=12, stop=("z",)))
        assert text == alone.text


def stock_model(base, folder, *, batch):
    """The harness's own `hf` model, which loads the base's files by itself."""
    base.model.save_pretrained(folder)
    # Given, since transformers would load some families' characters as another kind of tokenizer.
    tokenizer = copy.deepcopy(base.tokenizer)
    return HFLM(
        pretrained=str(folder), tokenizer=tokenizer, device="cpu", dtype="float32", batch_size=batch
    )


def test_the_base_without_latents_is_the_stock_model_number_for_number(base, tmp_path):
    with quiet():
        stock, ours = stock_model(base, tmp_path, batch=3), LatentLM(base, batch=3)
        assert ours.loglikelihood(requests(PAIRS)) == stock.loglikelihood(requests(PAIRS))
        prompts = [*CONTEXTS]
        assert ours.generate_until(questions(prompts)) == stock.generate_until(questions(prompts))


def test_the_base_and_its_tokenizer_are_left_as_they_were(llama, make):
    vocabulary, side = len(llama.tokenizer), llama.tokenizer.padding_side
    with quiet():
        LatentLM(llama, make(llama, "warm")).generate_until(questions(["a", "b c"]))
    assert len(llama.tokenizer) == vocabulary
    assert llama.tokenizer.padding_side == side
    assert llama.model.config._attn_implementation in {"sdpa", "eager"}


def test_prompts_too_long_lose_their_beginning_and_are_counted(llama, make):
    long = "a b c d " * 12 + "e"
    with quiet():
        for start in ("paper", "warm"):
            model = LatentLM(llama, make(llama, start))
            whole = model.loglikelihood(requests([(long, " e"), ("a", " e")]))
            assert model.cut == 1
            room = llama.positions + 1 - 2 - (3 if start == "paper" else 0)
            assert model.loglikelihood(requests([(long[-room:], " e")]))[0] == pytest.approx(
                whole[0], abs=TOLERANCE
            )
            model.generate_until(questions([long, "a"]))
            assert model.cut == 2
        with pytest.raises(DeliberateError, match="a continuation has 70 tokens"):
            model.loglikelihood(requests([("a", "b" * 70)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "drop"])
def test_real_tasks_give_the_stock_model_s_numbers(name, long_llama, eval_data, tmp_path):
    tasks = dict(list(tasks_of(BENCHMARKS[name], eval_data).items())[:2])
    with quiet():
        stock, ours = stock_model(long_llama, tmp_path, batch=4), LatentLM(long_llama, batch=4)
    answers, raw = [], []
    for task in tasks.values():
        if task.config.output_type == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": 8}, update=True)
    for model in (stock, ours):
        answers.append(ask(model, BENCHMARKS[name], tasks, limit=2))
        raw.append([one.resps for task in tasks.values() for one in task.instances])
    assert raw[0] == raw[1]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 2 * len(tasks)


def test_examples_are_the_same_for_every_model_that_is_asked(write_rows, llama, make):
    rows = [{"question": f"which letter is {c}", "answer": [c]} for c in "abcdefgh"]
    folder = write_rows("nq_open/NQ-open.dev.jsonl", *rows)
    tasks = tasks_of(BENCHMARKS["nq_open"], folder)
    prompts = []
    with quiet():
        for model in (LatentLM(llama), LatentLM(llama, make(llama, "warm"))):
            tasks["nq_open"].set_config(
                key="generation_kwargs", value={"max_gen_toks": 2}, update=True
            )
            ask(model, BENCHMARKS["nq_open"], tasks, limit=3)
            prompts.append([one.args[0] for one in tasks["nq_open"].instances])
    assert prompts[0] == prompts[1]
    for number, prompt in enumerate(prompts[0]):
        assert prompt.count("Q: ") == 6
        assert prompt.count(f"is {'abcdefgh'[number]}?") == 1  # never among its own examples


@pytest.mark.parametrize("name", ["piqa", "siqa", "winogrande"])
def test_the_option_that_is_noted_is_the_one_that_is_scored(name, write_rows, llama, make):
    ends = ["a", "a lot longer than that", "mid size"]
    rows = {
        "winogrande": {
            "sentence": "Ann so _ ran.",
            "option1": "Ann",
            "option2": "I",
            "answer": "2",
        },
        "piqa": {"goal": "do", "sol1": ends[0], "sol2": ends[1], "label": 0},
        "siqa": {"context": "so", "question": "what", "label": "1"}
        | dict(zip(("answerA", "answerB", "answerC"), ends, strict=True)),
    }
    many = [
        {
            k: f"{n} {v}" if k in {"goal", "context", "sentence"} else v
            for k, v in rows[name].items()
        }
        for n in range(20)
    ]
    tasks = tasks_of(BENCHMARKS[name], write_rows(f"{name}/validation.jsonl", *many))
    with quiet():
        answers = ask(LatentLM(llama, make(llama, "warm")), BENCHMARKS[name], tasks).values()
    for one in answers:
        assert (str(one.answer) == one.target) == (one.scores[BENCHMARKS[name].score] == 1)


def test_too_little_memory_halves_the_batch_and_asks_again(write_rows, llama, monkeypatch):
    rows = [{"goal": f"goal {c}", "sol1": "b", "sol2": "c", "label": 0} for c in "abcdef"]
    tasks = tasks_of(BENCHMARKS["piqa"], write_rows("piqa/validation.jsonl", *rows))
    with quiet():
        model = LatentLM(llama, batch=8)
    expected = ask(model, BENCHMARKS["piqa"], tasks)
    whole, said = HFLM._model_call, []

    def too_small(self, inps, **more):
        if len(inps) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(self, inps, **more)

    monkeypatch.setattr(HFLM, "_model_call", too_small)
    fits = 2
    found = ask_within_memory(model, BENCHMARKS["piqa"], tasks, on_note=said.append)
    assert {name: one.answer for name, one in found.items()} == {
        name: one.answer for name, one in expected.items()
    }
    assert said == [f"piqa: out of memory, going on with --batch {size}" for size in (4, 2)]
    fits = 0
    with pytest.raises(DeliberateError, match="piqa: out of memory with a single text"):
        ask_within_memory(model, BENCHMARKS["piqa"], tasks)
