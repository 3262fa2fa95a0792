import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import context
from bot.context import MAX_BYTES, enclosing

# Each sample: path, source, the line asked about, the lines of the block around it.
SAMPLES = [
    ("a.py", "import os\n\n@cache\ndef f(x):\n    y = x\n    return y\n\nz = 1\n", 5, (3, 6)),
    ("a.py", "class A:\n    x = 1\n    y = 2\n\n    def f(self):\n        return 1\n", 2, (1, 6)),
    (
        "a.py",
        "class A:\n    x = 1\n\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n",
        8,
        (7, 8),
    ),
    ("a.pyi", "def f() -> int: ...\n", 1, (1, 1)),
    (
        "a.go",
        "package a\n\nfunc (s *T) M(a int) int {\n\tx := 1\n\treturn x\n}\n\ntype T struct {\n\ta int\n}\n",
        4,
        (3, 6),
    ),
    ("a.go", "package a\n\ntype T struct {\n\ta int\n}\n", 4, (3, 5)),
    ("A.java", "class A {\n  int b() {\n    return 1;\n  }\n  int c;\n}\n", 3, (2, 4)),
    ("A.java", "class A {\n  int b() {\n    return 1;\n  }\n  int c;\n}\n", 5, (1, 6)),
    ("a.js", "class A {\n  b() {\n    return 1;\n  }\n}\nconst f = (x) => {\n  return x;\n};\n", 3, (2, 4)),
    ("a.mjs", "export const f = (x) => {\n  return x;\n};\n", 2, (1, 3)),
    ("a.jsx", "function A() {\n  return <p>\n    a\n  </p>;\n}\n", 3, (1, 5)),
    ("a.ts", "interface A {\n  b: string;\n}\nexport function f(a: A): string {\n  return a.b;\n}\n", 5, (4, 6)),
    ("a.ts", "interface A {\n  b: string;\n}\n", 2, (1, 3)),
    ("a.tsx", "export function A(): JSX.Element {\n  return <b>x</b>;\n}\n", 2, (1, 3)),
    ("a.c", "int *f(int a)\n{\n  return 0;\n}\nstruct s {\n  int a;\n};\n", 3, (1, 4)),
    ("a.h", "struct s {\n  int a;\n};\n", 2, (1, 3)),
    ("a.cpp", "class A {\n public:\n  int f() {\n    return 1;\n  }\n};\n", 4, (3, 5)),
    ("a.hpp", "template <class T>\nT f(T a) {\n  return a;\n}\n", 3, (1, 4)),
    ("a.rs", "impl A {\n    fn b(&self) -> u8 {\n        1\n    }\n}\n", 3, (2, 4)),
    ("a.rs", "impl A {\n    const B: u8 = 1;\n}\n", 2, (1, 3)),
    ("a.rb", "class A\n  def b(c)\n    c\n  end\n  D = 1\nend\n", 3, (2, 4)),
    ("Rakefile", "module A\n  B = 1\nend\n", 2, (1, 3)),
    ("a.php", "<?php\nclass A {\n  function b() {\n    return 1;\n  }\n}\n", 4, (3, 5)),
    ("A.cs", "class A {\n  int B() {\n    return 1;\n  }\n}\n", 3, (2, 4)),
    ("a.kt", "class A {\n  fun b(c: Int): Int {\n    return c\n  }\n}\n", 3, (2, 4)),
    ("a.sh", "f() {\n  echo 1\n}\n", 2, (1, 3)),
    ("a.yaml", "a:\n  b: 1\n  c:\n    - x\nd: 2\n", 4, (1, 4)),
]


@pytest.mark.parametrize(("path", "source", "line", "lines"), SAMPLES)
def test_finds_the_block_around_a_line(path: str, source: str, line: int, lines: tuple[int, int]) -> None:
    block = enclosing(source, path, line, line)
    assert block
    assert (block.start, block.end) == lines
    assert block.text == "\n".join(source.split("\n")[lines[0] - 1 : lines[1]])


@pytest.mark.parametrize(("path", "source", "line", "lines"), SAMPLES)
def test_finds_it_with_windows_line_ends_too(path: str, source: str, line: int, lines: tuple[int, int]) -> None:
    block = enclosing(source.replace("\n", "\r\n"), path, line, line)
    assert block
    assert (block.start, block.end) == lines


@pytest.mark.parametrize(
    ("source", "path", "first", "last"),
    [
        ("x = 1\n", "a.py", 1, 1),  # nothing around it
        ("def f():\n    return 1\n", "a.txt", 1, 2),  # no such language
        ("def f():\n    return 1\n", "Makefile", 1, 2),
        ("def f():\n    return 1\n", "a.py", 7, 9),  # not in the file
        ("def f():\n    return 1\n\n\n", "a.py", 3, 4),  # blank
        ("", "a.py", 1, 1),
        ("def f():\n    return 1\n\n\ndef g():\n    return 2\n", "a.py", 2, 6),  # two functions, no class
        ("def f():\n    return '" + "x" * MAX_BYTES + "'\n", "a.py", 2, 2),
    ],
)
def test_nothing_is_found_where_there_is_nothing(source: str, path: str, first: int, last: int) -> None:
    assert enclosing(source, path, first, last) is None


def test_broken_code_is_no_error() -> None:
    source = "def f(:\n    return (((\n\n\ndef g():\n    x = 1\n    return x\n"
    block = enclosing(source, "a.py", 6, 6)
    assert block
    assert "    x = 1" in block.text


def test_lines_are_counted_by_newlines_alone() -> None:
    source = "# a\u2028b\x0cc\x1cd\0e\ndef f():\n    return 'ä\u2028'\n"
    block = enclosing(source, "a.py", 3, 3)
    assert block
    assert (block.start, block.end) == (2, 3)


def test_a_parse_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "MAX_SECONDS", -1.0)
    body = "".join(f"    x{number} = {number}\n" for number in range(5_000))
    assert enclosing(f"def never_parsed_before():\n{body}", "a.py", 3, 3) is None


def test_one_sided_nesting_ends() -> None:
    for path in ("a.py", "a.js", "a.rs", "a.c", "a.yaml"):
        enclosing("(" * 20_000 + "\nx", path, 2, 2)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters() | st.sampled_from("\n\r\t(){}:'\"#=/*"), max_size=300),
    st.sampled_from(sorted({path for path, *_ in SAMPLES})),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_any_text_gives_nothing_or_a_block_that_covers_the_lines(text: str, path: str, first: int, more: int) -> None:
    block = enclosing(text, path, first, first + more)
    if block is not None:
        lines = text.split("\n")
        assert block.text == "\n".join(lines[block.start - 1 : block.end])
        asked = [number for number in range(first, first + more + 1) if number <= len(lines)]
        telling = [number for number in asked if lines[number - 1].strip()]
        assert block.start <= telling[0]
        assert telling[-1] <= block.end


def test_no_grammar_is_imported_before_it_is_needed() -> None:
    program = "import sys, bot.context; print([name for name in sys.modules if name.startswith('tree_sitter')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
