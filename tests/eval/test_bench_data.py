"""Questions from local files are those of the Hub, and what cannot be read is named."""

import pytest

pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")

import datasets
from datasets import Dataset, DatasetDict

from deliberate.core.errors import DeliberateError
from deliberate.eval.bench import local
from deliberate.eval.bench.benchmarks import BENCHMARKS, chosen, require_harness
from deliberate.eval.bench.run import prepare
from deliberate.eval.bench.tasks import tasks_of

WHOLE = {
    "mmlu": 14_079,
    "gsm8k": 1_319,
    "arc_easy": 2_376,
    "arc_challenge": 1_172,
    "math": 5_000,
    "winogrande": 1_267,
    "piqa": 1_838,
    "siqa": 1_954,
    "hellaswag": 10_042,
    "boolq": 3_270,
    "mbpp": 500,
    "agieval": 8_269,
    "triviaqa": 3_000,
    "nq_open": 3_610,
    "humaneval": 164,
    "bbh": 6_511,
}
"""Questions of each set; MBPP's are those of its test part, of 974 rows."""

# One question as a local file has it, and as the Hub's data set has it.
PAIRS = {
    "arc_easy": (
        {"query": "Question: Which is hot?", "choices": ["ice", "fire"], "gold": 1},
        {
            "question": "Which is hot?",
            "choices": {"text": ["ice", "fire"], "label": ["A", "B"]},
            "answerKey": "B",
        },
    ),
    "winogrande": (
        {
            "context_options": ["Ann met Bea so Ann", "Ann met Bea so Bea"],
            "continuation": "was glad.",
            "gold": 1,
        },
        {
            "sentence": "Ann met Bea so _ was glad.",
            "option1": "Ann",
            "option2": "Bea",
            "answer": "2",
        },
    ),
    "piqa": (
        {"query": "Question: Boil water?\n", "choices": ["Heat it.", "Cool it."], "gold": 0},
        {"goal": "Boil water?", "sol1": "Heat it.", "sol2": "Cool it.", "label": 0},
    ),
    "siqa": (
        {
            "instruction": "Please choose the correct answer to the question: Ann ran home. Why "
            "did Ann do this?\n\nAnswer1: it rained Answer2: to eat Answer3: for fun\n\nAnswer "
            "format: answer1/answer2/answer3",
            "answer": "answer2",
        },
        {
            "context": "Ann ran home.",
            "question": "Why did Ann do this?",
            "answerA": "it rained",
            "answerB": "to eat",
            "answerC": "for fun",
            "label": "2",
        },
    ),
    "boolq": (
        {
            "query": "Passage: Ice is cold.\nSo it is.\nQuestion: is ice hot?",
            "choices": ["no", "yes"],
            "gold": 0,
        },
        {"passage": "Ice is cold.\nSo it is.", "question": "is ice hot", "label": 0},
    ),
    "triviaqa": (
        {"context": "Question: Who wrote it?\nAnswer:", "answer": "Ann", "aliases": ["Ann", "A."]},
        {"question": "Who wrote it?", "answer": {"aliases": ["Ann", "A."]}},
    ),
}
FILES = {"arc_easy": "arc_easy.jsonl", "siqa": "validation.jsonl", "triviaqa": "subset.jsonl"}


@pytest.mark.parametrize("name", WHOLE)
def test_every_set_that_is_there_loads_whole(name, eval_data):
    [found] = prepare(chosen(name), data=eval_data, run_code=True).tasks.values()
    assert sum(len(task.eval_docs) for task in found.values()) == WHOLE[name]


def test_a_set_that_is_not_there_is_left_out_and_said_in_one_line(eval_data):
    prepared = prepare(chosen("drop,arc_easy"), data=eval_data)
    assert [*prepared.tasks] == ["arc_easy"]
    assert prepared.left_out.keys() == {"drop"}
    assert prepared.left_out["drop"].startswith("absent: there is no ")
    assert prepared.left_out["drop"].endswith("drop/validation.jsonl'")


def asked(task):
    """The requests that a task makes of its questions."""
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests()
    return [(one.args, task.doc_to_target(one.doc)) for one in task.instances]


@pytest.mark.parametrize("name", PAIRS)
def test_a_row_of_a_local_file_is_asked_as_the_hub_s_row_is(name, write_rows):
    prompts = []
    for row in PAIRS[name]:
        folder = write_rows(f"{name}/{FILES.get(name, 'validation.jsonl')}", *[row] * 7)
        [task] = tasks_of(BENCHMARKS[name], folder).values()
        task.set_config(key="num_fewshot", value=0)  # its examples would be the question itself
        prompts.append(asked(task))
    assert prompts[0] == prompts[1]
    assert prompts[0]


def test_hellaswag_without_activities_differs_by_just_that(write_rows):
    ends = {"endings": ["falls off.", "[step] sings."], "label": 0}
    here = {"ctx": "A man sits. he", **ends}
    hub = {"activity_label": "Roofing", "ctx_a": "A man sits.", "ctx_b": "he", **ends, "label": "0"}
    contexts = []
    for row in (here, hub):
        folder = write_rows("hellaswag/validation.jsonl", row)
        [task] = tasks_of(BENCHMARKS["hellaswag"], folder).values()
        contexts.append([args[0] for args, _ in asked(task)])
    assert contexts == [["A man sits. he"] * 2, ["Roofing: A man sits. He"] * 2]


def test_agieval_s_own_rows_get_the_prompt_of_its_own_code(write_rows):
    row = {"passage": "P.", "question": "Which?", "options": ["(A)x", "(B)y"], "label": ["B"]}
    folder = write_rows("agieval/sat-en.jsonl", row)
    [found] = local.read(folder, "agieval", ["agieval_sat_en"])["agieval_sat_en"].questions
    assert found == {
        "query": "P.Q: Which? Answer Choices: (A)x (B)y\nA: Among A through B, the answer is",
        "choices": ["(A)x", "(B)y"],
        "gold": [1],
    }
    cloze = {"passage": None, "question": "1+1?", "options": None, "label": None, "answer": "2"}
    folder = write_rows("agieval/math.jsonl", cloze)
    [found] = local.read(folder, "agieval", ["agieval_math"])["agieval_math"].questions
    assert found == {"query": "Q: 1+1?\nA: The answer is", "answer": "2"}


def test_mmlu_is_read_from_its_own_tables(tmp_path):
    for part, rows in (("test", 'One, "1"?,a,"b, c",d,e,B\n'), ("dev", "Two?,a,b,c,d,D\n" * 5)):
        (tmp_path / "mmlu" / part).mkdir(parents=True)
        (tmp_path / "mmlu" / part / f"anatomy_{part}.csv").write_text(
            rows.replace('One, "1"', "One")
        )
    rows = local.read(tmp_path, "mmlu", ["mmlu_anatomy"])["mmlu_anatomy"]
    assert rows.questions == [{"question": "One?", "choices": ["a", "b, c", "d", "e"], "answer": 1}]
    assert [shot["answer"] for shot in rows.shots] == [3] * 5


def test_a_text_may_hold_a_line_separator(write_rows):
    folder = write_rows("gsm8k/test.jsonl", {"question": "one", "answer": "1"})
    (folder / "gsm8k" / "test.jsonl").write_text('{"question": "a\u2028b", "answer": "1"}\n')
    [row] = local.read(folder, "gsm8k", ["gsm8k_cot"])["gsm8k_cot"].questions
    assert row["question"] == "a\u2028b"


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("gsm8k/test", {"question": "one"}, "no field 'answer': expected are question, answer"),
        (
            "piqa/validation",
            {"goal": "one"},
            "no field 'choices': expected are choices, query, gold",
        ),
        ("piqa/validation", {"choices": ["a", "b"], "query": "x", "gold": 0}, "field 'query' does"),
        ("boolq/validation", {"query": "x", "choices": [], "gold": 0}, "field 'query' has not"),
        ("math/test", {"context": "x", "chain_of_thought": "y"}, "without field 'category'"),
        ("arc_easy/test", {"query": "Question: x", "choices": ["a"], "gold": 3}, "out of range"),
    ],
)
def test_other_columns_are_refused_by_file_and_field(write_rows, name, row, told):
    folder = write_rows(f"{name}.jsonl", row)
    with pytest.raises(DeliberateError) as refused:
        prepare(chosen(name.partition("/")[0]), data=folder)
    assert told in str(refused.value)
    assert f"{name}.jsonl'" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[1]", "\n", "\ufffe"])
def test_a_file_that_holds_no_rows_is_named(write_rows, content):
    folder = write_rows("gsm8k/test.jsonl", {})
    (folder / "gsm8k" / "test.jsonl").write_text(content)
    with pytest.raises(DeliberateError, match=r"gsm8k/test\.jsonl'"):
        prepare(chosen("gsm8k"), data=folder)


def test_rows_of_unlike_types_are_refused(write_rows):
    rows = [{"question": "one", "answer": ["1"]}] * 5 + [{"question": "two", "answer": {"a": 2}}]
    folder = write_rows("nq_open/NQ-open.dev.jsonl", *rows)
    with pytest.raises(DeliberateError, match=r"nq_open' do not go together"):
        prepare(chosen("nq_open"), data=folder)


def test_too_few_questions_to_take_examples_from_are_refused(write_rows):
    rows = [{"question": f"{n}", "answer": ["1"]} for n in range(5)]
    folder = write_rows("nq_open/NQ-open.dev.jsonl", *rows)
    with pytest.raises(DeliberateError, match="nq_open' has 5 questions, and 5 examples of others"):
        prepare(chosen("nq_open"), data=folder)


@pytest.mark.parametrize("name", WHOLE)
def test_the_hub_s_parts_are_those_that_the_tasks_ask_for(name, eval_data, monkeypatch):
    """A stand-in of the Hub's data sets, with the columns that they have there."""
    benchmark, rows = BENCHMARKS[name], {}
    whole = tasks_of(benchmark, eval_data)
    for task, found in local.read(eval_data, name, [*whole]).items():
        rows[task] = [*found.questions[:8], *found.shots]
    parts = iter(rows.values())

    def load(path, name=None, **_):
        data = Dataset.from_list(next(parts))
        return DatasetDict(dict.fromkeys(("train", "validation", "test", "dev", "prompt"), data))

    monkeypatch.setattr(datasets, "load_dataset", load)
    made = tasks_of(benchmark, None)
    assert made.keys() == whole.keys()
    first = next(iter(made.values()))
    first.set_fewshot_seed(seed=1234)
    first.build_all_requests(limit=2)
    assert first.config.num_fewshot == benchmark.shots
    assert len(first.instances) >= 2


def test_drop_is_asked_from_rows_like_the_hub_s(write_rows):
    date = {"day": "", "month": "", "year": ""}
    row = {
        "query_id": "1",
        "passage": "Ann has two cats.",
        "question": "How many cats?",
        "answer": {"number": "2", "date": date, "spans": []},
        "validated_answers": {"number": ["2"], "date": [date], "spans": [[]]},
    }
    folder = write_rows("drop/validation.jsonl", *[{**row, "query_id": str(i)} for i in range(5)])
    [task] = tasks_of(BENCHMARKS["drop"], folder).values()
    [(args, _), *_] = asked(task)
    assert args[0].endswith("Ann has two cats. How many cats?")
    assert args[0].count("cats?") == 4  # three examples


@pytest.mark.parametrize("missing", ["lm_eval", "math_verify"])
def test_an_extra_that_is_not_installed_is_named_with_its_command(monkeypatch, missing):
    monkeypatch.setattr(
        "deliberate.eval.bench.benchmarks.find_spec", lambda name: None if name == missing else 1
    )
    with pytest.raises(DeliberateError, match=r"pip install 'accelerate.*' 'lm_eval\[math\]"):
        require_harness(chosen("math"))


def test_names_are_chosen_once_and_in_order():
    assert [*BENCHMARKS] == [one.name for one in chosen("paper")]
    assert len(BENCHMARKS) == 17
    assert [one.name for one in chosen("piqa, mmlu,piqa")] == ["piqa", "mmlu"]
    for wrong in ("gsm8", "MMLU", ""):
        with pytest.raises(ValueError, match=f"no benchmark '{wrong}': known are paper, mmlu"):
            chosen(wrong)
