"""docs/complaints.md and the tests of this folder name each other, so that neither can lose a complaint."""

import ast
import re
from pathlib import Path

from ..support.tidy import ROOT

PAGE = (ROOT / "docs/complaints.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<complaint>[^|]+) \| (?P<whose>[^|]+) \| (?P<here>[^|]+) \| (?P<test>[^|]+) \|$", re.MULTILINE
)
SECTION = re.compile(r"^## ([A-Z])\. .*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
HERE = Path(__file__)
TESTS = {
    function.name: (path.name, ast.get_docstring(function))
    for path in sorted(HERE.parent.glob("test_*.py"))
    if path != HERE
    for function in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(function, ast.FunctionDef) and function.name.startswith("test")
}


def rows(text: str) -> list[re.Match[str]]:
    return [row for row in ROW.finditer(text) if not row["test"].startswith(("the test", "---"))]


def test_every_row_names_a_test_that_exists_or_says_why_there_is_none() -> None:
    found = 0
    for section in SECTION.finditer(PAGE):
        for row in rows(section[0]):
            found += 1
            named = re.findall(r"`(test_\w+)`", row["test"])
            assert named or row["test"].startswith("none: "), row[0]
            for name in named:
                assert name in TESTS, name
                assert TESTS[name][0].startswith(f"test_{section[1].lower()}_"), f"{name} is of another section"
    assert found == sum(line.startswith("| ") for line in PAGE.splitlines()) - len(SECTION.findall(PAGE))


def test_every_test_stands_in_a_row_and_says_what_the_peer_does() -> None:
    for name, (_, said) in TESTS.items():
        assert len(re.findall(rf"`{name}`", PAGE)) == 1, name
        assert said, name
