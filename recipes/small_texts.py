"""What `small` reads and is asked: books, and arithmetic in words. `make small` runs this.

text/books/*.md --> books.jsonl, in pieces, the books in any order
eval/gsm8k_icot, eval/svamp --> arithmetic.jsonl, answered at once and worked out
their tests --> gsm8k.jsonl, svamp.jsonl, and an eighth of MAWPS and ASDiv-A: mawps.jsonl

A question with its answer is as in `deliberate.core.problems`: on one line, or behind its cue with
the way, a line a step, and "So answer". GSM8K's short chains are of Deng et al., arXiv:2405.14838.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from deliberate.core.problems import Problem, is_validation

BOOKS = "text/books"
CHAINS, CHAINS_TEST = "eval/gsm8k_icot/train_from_gsm8k.txt", "eval/gsm8k_icot/test.txt"
MAWPS = "eval/svamp/mawps-asdiv-a_svamp_train.csv"
SVAMP = "eval/svamp/mawps-asdiv-a_svamp_dev.csv"
SEED = 17
PIECE = 20_000
"""Characters after which a piece of a book ends at the next empty line."""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with text/ and eval/")
    parser.add_argument("output", type=Path, help="folder for the files")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    write(options.output / "books.jsonl", [{"text": text} for text in pieces(options.data / BOOKS)])
    learned = list(chains(options.data / CHAINS))
    words = list(equations(options.data / MAWPS))
    asked = {
        "gsm8k": list(chains(options.data / CHAINS_TEST)),
        "svamp": list(equations(options.data / SVAMP)),
        "mawps": [each for each in words if is_validation(each.question)],
    }
    held_out = {each.question for some in asked.values() for each in some}
    texts = [text for each in learned for text in (each.pair, each.worked)]
    texts += [each.pair for each in words if each.question not in held_out]
    Random(SEED).shuffle(texts)  # a base holds the last of them out
    write(options.output / "arithmetic.jsonl", [{"text": text} for text in texts])
    for name, some in asked.items():
        rows = [{"question": each.question, "answer": each.answer} for each in some]
        write(options.output / f"{name}.jsonl", rows)


def pieces(folder: Path) -> Iterator[str]:
    """Books in pieces, one book after another: the last are held out, and none is cut for that."""
    paths = sorted(folder.glob("*.md"))
    Random(SEED).shuffle(paths)
    for path in paths:
        piece = ""
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            piece += paragraph + "\n\n"
            if len(piece) >= PIECE:
                yield piece
                piece = ""
        if piece.strip():
            yield piece


def chains(path: Path) -> Iterator[Problem]:
    """GSM8K's questions, each with equations as its chain: `question||<<1+1=2>> #### 2`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        question, _, rest = line.partition("||")
        work = tuple(re.findall(r"<<(.*?)>>", rest))
        answer = rest.rpartition("####")[2].strip().replace(",", "")
        yield Problem(
            family=path.stem, steps=len(work), question=tidy(question), work=work, answer=answer
        )


def equations(path: Path) -> Iterator[Problem]:
    """Questions of MAWPS, ASDiv-A and SVAMP, numbers put where their places are."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            question = row["Question"]
            for place, said in reversed([*enumerate(row["Numbers"].split())]):  # 10 before 1
                question = question.replace(f"number{place}", number(said))
            steps = sum(part in "+-*/" for part in row["Equation"].split())
            yield Problem(
                family=path.stem,
                steps=steps,
                question=tidy(question),
                work=(),
                answer=number(row["Answer"]),
            )


def number(said: str) -> str:
    """A number without the point that says nothing: 12 of `12.0`, 2.5 of `2.5`."""
    value = float(said)
    return str(int(value)) if value.is_integer() else f"{value:g}"


def tidy(text: str) -> str:
    """One line, no blank before a sign, and sentences that begin with a large letter."""
    text = re.sub(r"\s+([.,?!])", r"\1", " ".join(text.split()))
    return re.sub(r"(?:^|(?<=[.?!] ))[a-z]", lambda found: found[0].upper(), text)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows):,} rows")  # noqa: T201


if __name__ == "__main__":
    main()
