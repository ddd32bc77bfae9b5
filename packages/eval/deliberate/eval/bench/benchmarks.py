"""The paper's seventeen benchmarks by name: which task of the harness, how many shots, which score.

    names --chosen--> Benchmarks, of which tasks.py makes the harness's tasks

Source: arXiv:2412.17747, table 2, which says the shots; where it does not say the prompt or the
score, the harness's are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from deliberate.core.errors import DeliberateError

PAPER = "paper"
"""Name of all seventeen together."""

RESULTS = "bench.json"
"""The file of a run's results, beside one file of records a set."""

EXTRA = "pip install 'accelerate>=1.1' 'lm_eval[math]>=0.4.13,<0.4.14'"
"""How the harness is installed; on the package index our own name is another project's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One set of questions."""

    name: str
    """What the command and the files call it."""

    folder: str
    """Where its tasks are, in the harness's folder of tasks."""

    tasks: str
    """Names of its tasks there, as a glob."""

    shots: int
    """Examples before each question."""

    score: str = "exact_match"
    """The harness's metric that is reported: `acc_norm` where the task has it everywhere."""

    filter: str = "none"
    """The harness's filter of what was generated."""

    right: str = ""
    """The metric that says whether an answer is right, where the score is not that."""

    runs_code: bool = False
    """Whether what the model writes has to be run."""

    paper_shots: str = ""
    """The paper's number of shots, where ours is another."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(name="mmlu", folder="mmlu/default", tasks="mmlu_*", shots=5, score="acc"),
        Benchmark(name="gsm8k", folder="gsm8k", tasks="gsm8k_cot", shots=8, filter="strict-match"),
        Benchmark(name="drop", folder="drop", tasks="drop", shots=3, score="f1", right="em"),
        Benchmark(name="arc_easy", folder="arc", tasks="arc_easy", shots=0, score="acc_norm"),
        Benchmark(
            name="arc_challenge", folder="arc", tasks="arc_challenge", shots=0, score="acc_norm"
        ),
        Benchmark(name="math", folder="minerva_math", tasks="minerva_math_*", shots=4),
        Benchmark(name="winogrande", folder="winogrande", tasks="winogrande", shots=0, score="acc"),
        Benchmark(name="piqa", folder="piqa", tasks="piqa", shots=0, score="acc_norm"),
        Benchmark(name="siqa", folder="siqa", tasks="social_iqa", shots=0, score="acc"),
        Benchmark(
            name="hellaswag", folder="hellaswag", tasks="hellaswag", shots=0, score="acc_norm"
        ),
        Benchmark(name="boolq", folder="super_glue/boolq", tasks="boolq", shots=0, score="acc"),
        Benchmark(
            name="mbpp", folder="mbpp", tasks="mbpp", shots=3, score="pass_at_1", runs_code=True
        ),
        Benchmark(
            name="agieval",
            folder="agieval",
            tasks="agieval_*",
            shots=0,
            score="acc",
            paper_shots="3-5",
        ),
        Benchmark(
            name="triviaqa",
            folder="triviaqa",
            tasks="triviaqa",
            shots=5,
            filter="remove_whitespace",
        ),
        Benchmark(
            name="nq_open", folder="nq_open", tasks="nq_open", shots=5, filter="remove_whitespace"
        ),
        Benchmark(
            name="humaneval",
            folder="humaneval",
            tasks="humaneval",
            shots=0,
            score="pass_at_1",
            filter="create_test",
            runs_code=True,
        ),
        Benchmark(
            name="bbh",
            folder="bbh/cot_fewshot",
            tasks="bbh_cot_fewshot_*",
            shots=3,
            filter="get-answer",
        ),
    )
}
"""By name, in the order of the paper's table."""


def chosen(names: str) -> list[Benchmark]:
    """The benchmarks of a comma-separated list of names, each once; `paper` is all of them.

    Raises:
        ValueError: one is unknown.
    """
    found: dict[str, Benchmark] = {}
    for name in (name.strip() for name in names.split(",")):
        if name == PAPER:
            found |= BENCHMARKS
        elif name in BENCHMARKS:
            found[name] = BENCHMARKS[name]
        else:
            raise ValueError(f"no benchmark {name!r}: known are {PAPER}, {', '.join(BENCHMARKS)}")
    return list(found.values())


def require_harness(benchmarks: Sequence[Benchmark]) -> None:
    """See that the harness is installed, before anything is loaded.

    Raises:
        DeliberateError: it is not, or not all that one of the benchmarks needs.
    """
    needed = {"lm_eval": "lm-evaluation-harness"}
    if any(benchmark.name == "math" for benchmark in benchmarks):
        needed |= {"math_verify": "math-verify", "antlr4": "antlr4-python3-runtime"}
    for module, what in needed.items():
        if find_spec(module) is None:
            raise DeliberateError(f"benchmarks need {what}, which is not installed: {EXTRA}")
