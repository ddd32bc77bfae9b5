"""OpenAI's own client is content with what it gets."""

import dataclasses
import math

import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deliberate.core import Sampling, generate, load_base, prefill, tokenize
from deliberate.serve.completions import CompletionForm
from deliberate.serve.decoding import Row
from deliberate.serve.engine import Token
from deliberate.serve.outcome import Outcome, Start
from deliberate.serve.token_texts import added

PROMPT = "words to go on from"
NEVER = {"deliberate": "never"}


@pytest.fixture
def client(server):
    return server.client


def alone(base, prompt, **sampling):
    text = prompt if isinstance(prompt, torch.Tensor) else tokenize(base, prompt)
    [done] = generate(base, prefill(base, [text]), Sampling(**{"max_tokens": 8, **sampling}))
    return done


def complete(client, prompt=PROMPT, **options):
    wanted = {"temperature": 0, "max_tokens": 8, "extra_body": NEVER, **options}
    return client.completions.create(model="tiny", prompt=prompt, **wanted)


class TestCompletions:
    def test_a_greedy_answer_is_what_generate_gives(self, server, client):
        answer = complete(client)
        [choice] = answer.choices
        expected = alone(server.base, PROMPT)
        assert choice.text == expected.text
        assert choice.finish_reason == expected.finish
        assert answer.object == "text_completion"
        assert answer.model == "tiny"
        assert answer.usage.prompt_tokens == len(PROMPT)
        assert answer.usage.completion_tokens == len(expected.token_ids)
        assert answer.usage.total_tokens == len(PROMPT) + len(expected.token_ids)

    def test_a_stream_makes_the_same_text(self, client):
        whole = complete(client).choices[0]
        events = list(complete(client, stream=True, stream_options={"include_usage": True}))
        *pieces, counted = events
        assert "".join(event.choices[0].text for event in pieces) == whole.text
        assert [event.choices[0].finish_reason for event in pieces][-1] == whole.finish_reason
        assert {event.choices[0].finish_reason for event in pieces[:-1]} <= {None}
        assert not counted.choices
        assert counted.usage.completion_tokens == 8
        assert pieces[-1].model_extra["deliberate"]["latents"] == "never"

    def test_prompts_may_be_texts_or_tokens_one_or_several(self, server, client):
        ids = tokenize(server.base, PROMPT).tolist()
        text = alone(server.base, PROMPT).text
        assert complete(client, ids).choices[0].text == text
        assert [c.text for c in complete(client, [ids, ids]).choices] == [text, text]
        several = complete(client, [PROMPT, "another"])
        assert [choice.text for choice in several.choices] == [
            text,
            alone(server.base, "another").text,
        ]
        assert [choice.index for choice in several.choices] == [0, 1]
        assert several.usage.prompt_tokens == len(PROMPT) + len("another")

    def test_sampling_is_repeated_by_its_seed_and_each_answer_has_its_own_stream(
        self, server, client
    ):
        one = complete(client, n=3, temperature=1, seed=7)
        two = complete(client, n=3, temperature=1, seed=7)
        texts = [choice.text for choice in one.choices]
        assert texts == [choice.text for choice in two.choices]
        assert len(set(texts)) > 1
        assert texts[0] == alone(server.base, PROMPT, temperature=1.0, seed=7).text
        unseeded = {complete(client, temperature=1).choices[0].text for _ in range(3)}
        assert len(unseeded) > 1

    def test_it_ends_at_any_of_the_stop_texts(self, server, client):
        full = alone(server.base, PROMPT, max_tokens=12).text
        stop = full[5:7]
        choice = complete(client, max_tokens=12, stop=["@@", stop]).choices[0]
        assert choice.text == full[: full.index(stop)]
        assert choice.finish_reason == "stop"
        streamed = complete(client, max_tokens=12, stop=stop, stream=True)
        assert "".join(event.choices[0].text for event in streamed) == choice.text

    def test_log_probabilities_are_the_base_s(self, server, client):
        told = complete(client, logprobs=3, max_tokens=4).choices[0].logprobs
        base = server.base
        expected = alone(base, PROMPT, max_tokens=4)
        ids = torch.cat([tokenize(base, PROMPT), torch.tensor(expected.token_ids)])
        chances = base.model(ids[None]).logits[0].log_softmax(-1)[len(PROMPT) - 1 : -1]
        for at, token in enumerate(expected.token_ids):
            assert told.token_logprobs[at] == pytest.approx(chances[at, token].item(), abs=1e-4)
            assert max(told.top_logprobs[at].values()) == pytest.approx(
                chances[at].max().item(), abs=1e-4
            )
        assert "".join(told.tokens) == expected.text
        assert [len(top) for top in told.top_logprobs] == [3] * 4
        assert told.text_offset == [0, *torch.tensor([len(t) for t in told.tokens]).cumsum(0)[:-1]]
        pieces = [
            e.choices[0].logprobs for e in complete(client, logprobs=3, max_tokens=4, stream=True)
        ]
        assert [t for piece in pieces if piece for t in piece.tokens] == told.tokens
        assert [o for piece in pieces if piece for o in piece.text_offset] == told.text_offset

    def test_no_room_for_all_that_was_asked_ends_by_length(self, server, client, monkeypatch):
        monkeypatch.setattr("deliberate.serve.row.end_tokens", lambda _: frozenset())
        most = client.models.retrieve("tiny").max_model_len
        for left in (3, 1):
            answer = complete(client, "x" * (most - left), max_tokens=100)
            assert answer.choices[0].finish_reason == "length"
            assert answer.usage.total_tokens == most

    def test_a_temperature_next_to_nothing_is_none(self, client):
        assert (
            complete(client, temperature=1e-300).choices[0].text == complete(client).choices[0].text
        )

    def test_what_would_change_no_answer_is_ignored(self, client):
        extra = {**NEVER, "user": "me", "metadata": {"a": 1}, "best_of": 1, "echo": False}
        answer = complete(client, extra_body=extra, presence_penalty=0, logit_bias={})
        assert answer.choices[0].text == complete(client).choices[0].text


class TestChat:
    MESSAGES = [  # noqa: RUF012 (never changed)
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]

    def turn(self, client, **options):
        wanted = {"temperature": 0, "max_tokens": 6, "extra_body": NEVER, **options}
        return client.chat.completions.create(model="tiny", messages=self.MESSAGES, **wanted)

    def test_a_turn_follows_the_tokenizer_s_template(self, server, client):
        answer = self.turn(client)
        rendered = "system be brief\nuser hello\nassistant "
        assert answer.choices[0].message.content == alone(server.base, rendered, max_tokens=6).text
        assert answer.choices[0].message.role == "assistant"
        assert answer.object == "chat.completion"
        assert answer.usage.prompt_tokens == len(rendered)

    def test_a_stream_begins_with_the_role(self, client):
        events = list(self.turn(client, stream=True))
        assert events[0].choices[0].delta.role == "assistant"
        text = "".join(event.choices[0].delta.content or "" for event in events)
        assert text == self.turn(client).choices[0].message.content
        assert events[-1].choices[0].finish_reason

    def test_log_probabilities_have_the_shape_of_a_conversation(self, client):
        content = self.turn(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
        assert len(content) == 6
        for token in content:
            assert bytes(token.bytes).decode() == token.token
            assert len(token.top_logprobs) == 2
            assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)
            assert math.exp(token.logprob) <= 1

    def test_a_base_without_a_template_says_so(self, start, llama):
        server = start(base=llama)
        with pytest.raises(openai.BadRequestError, match="no chat template: ask /v1/completions"):
            self.turn(server.client)

    def test_what_the_template_refuses_is_refused(self, client):
        with pytest.raises(openai.BadRequestError, match="no such role"):
            client.chat.completions.create(
                model="tiny", messages=[{"role": "wizard", "content": "x"}]
            )


def test_tokens_joined_are_the_text_where_a_tokenizer_drops_a_lone_token_s_space(
    start, served_base
):
    words = ["<end>", "\u2581the", "\u2581cat", "s"]
    words += [f"\u2581w{number}" for number in range(served_base.vocab - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "<end>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    metaspace = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>")
    metaspace.chat_template = "{{ messages[0].content }}"
    server = start(base=dataclasses.replace(served_base, tokenizer=metaspace))
    choice = complete(server.client, "the cat", logprobs=2).choices[0]
    told = choice.logprobs
    assert " " in choice.text
    assert "".join(told.tokens) == choice.text
    for token, offset, top in zip(told.tokens, told.text_offset, told.top_logprobs, strict=True):
        assert choice.text[offset:].startswith(token)
        assert token in top
    turn = server.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "the cat"}], logprobs=True,
        temperature=0, max_tokens=8, extra_body=NEVER,
    ).choices[0]  # fmt: skip
    assert turn.message.content == choice.text
    told = b"".join(bytes(token.bytes) for token in turn.logprobs.content)
    assert told.decode() == turn.message.content


def test_what_tokens_add_is_their_text_where_they_stand():
    base = load_base("nano")
    ids = tokenize(base, "a 'é€' b", further=True).tolist()
    each = [added(base, ids[:at], [0, token])[1] for at, token in enumerate(ids)]
    assert "".join(each) == "a 'é€' b"


def test_of_tokens_that_say_the_same_the_likeliest_is_told(server):
    top = [(5, "\ufffd", -0.5), (6, "a", -1.0), (7, "\ufffd", -2.0)]
    token = Token(id=5, text="\ufffd", logprob=-0.5, top=top)
    [cache] = prefill(server.base, [tokenize(server.base, PROMPT)])
    start = Start(cache=cache, tokens=1, cached=0, outcome=Outcome(mode="never"))
    row = Row(index=0, start=start, sampling=Sampling(), logprobs=3, tokens=[token])
    told = CompletionForm().choice(row)["logprobs"]
    assert told["top_logprobs"] == [{"\ufffd": -0.5, "a": -1.0}]


def test_the_model_is_listed_and_no_other_one_is_answered_for(client):
    [model] = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").id == "tiny"
    for call in (lambda: client.models.retrieve("gpt-4"), lambda: complete_with(client, "gpt-4")):
        with pytest.raises(openai.NotFoundError, match="'gpt-4' is not here") as error:
            call()
        assert error.value.code == "model_not_found"


def complete_with(client, model):
    return client.completions.create(model=model, prompt="x")
