"""What the store's page shows runs as it stands."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "serving-store.md"


def test_the_python_of_the_page_runs_and_finds_what_it_put(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, PAGE.name, "exec"), names)  # it is ours
    assert [path.stem for path in Path("caches").glob("*.st")] == [names["found"]]
