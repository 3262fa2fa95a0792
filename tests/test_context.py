import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import context
from bot.context import enclosing, language_of

# One sample a language. FOUND says what `enclosing` finds for the lines marked with @1, @2, …
PYTHON = '''
import os

LIMIT = 3  # @1


class Basket:
    """Things. @2"""

    size: int = 0

    @property
    @cached(  # @3
        seconds=3,
    )
    def total(self) -> int:
        def add(left, right):
            return left + right  # @4

        # @5
        return sum(self.prices)

    class Item:
        price = 3  # @6


async def main():
    """Run. @7"""
    return [
        # @8
        lambda x: (
            x
        ),
    ]
'''
GO = """
package main // @1

type Server struct {
	addr string // @2
}

func (s *Server) Run(ctx context.Context) error {
	go func() {
		log.Println("@3")
	}()
	return nil
}

func (c Cache[K]) Get(key K) int {
	return 1 // @4
}

func main() {
	println("@5")
}

var handler = func(w http.ResponseWriter) {
	w.WriteHeader(200) // @6
}
"""
JAVA = """
package org.example; // @1

public class Basket<T> {
    private int size; // @2

    static {
        load(); // @3
    }

    public Basket(int size) {
        this.size = size; // @4
    }

    @Override
    @SuppressWarnings("all") // @5
    public int total() {
        return items.stream().map(item -> {
            return item.price(); // @6
        }).sum();
    }

    interface Item {
        int price(); // @7
    }

    enum Color {
        RED; // @8
    }

    record Point(int x) {
        Point {
            check(x); // @9
        }
    }
}
"""
JAVASCRIPT = """
import x from "x"; // @1

export const total = async (basket) => {
  return basket.size; // @2
};

class Basket {
  size = 3; // @3

  onClick = () => {
    this.go(); // @4
  };

  total() {
    return this.items.map((item) => {
      return item.price; // @5
    });
  }
}

exports.run = function () {
  go(); // @6
};

describe("basket", () => {
  it("adds", () => {
    go(); // @7
  });
});

const api = {
  get: function () {
    return 1; // @8
  },
};

function* numbers() {
  yield 1; // @9
}
"""
TYPESCRIPT = """
@Component({
  selector: "x", // @1
})
export class Basket {
  total(): number {
    return 1; // @2
  }
  private run = async (): Promise<void> => {
    await go(); // @3
  };
}
interface Item {
  price: number; // @4
}
namespace Shop {
  enum Color {
    Red, // @5
  }
}
export default function main(): void {
  go(); // @6
}
export *;
export abstract class Base {
  abstract x(): void; // @7
}
"""
TSX = """
export function App(): JSX.Element {
  const click = () => {
    go(); // @1
  };
  return (
    <button onClick={click}>{/* @2 */}</button>
  );
}
"""
C = """
#include <stdio.h> /* @1 */

struct basket {
  int size; /* @2 */
};

typedef struct {
  int price; /* @3 */
} item_t;

#define LOOP(x) \\
  for (;;) \\
    x("@4")

static int *
find(struct basket *b)
{
  return 0; /* @5 */
}

enum {
  A, /* @6 */
};
"""
CPP = """
namespace shop {
int limit; // @1

template <typename T>
class Basket : public Base {
 public:
  ~Basket() {
    clear(); // @2
  }
  Basket& operator=(const Basket& other) {
    return *this; // @3
  }
  int size; // @4
};

template <typename T>  // @5
int Basket<T>::total() const {
  std::sort(a, b, [](int x, int y) {
    return x < y; // @6
  });
}
}  // namespace shop

namespace {
int other; // @7
}
"""
RUST = """
use std::fmt; // @1

pub struct Basket {
    size: u32, // @2
}

impl<T> fmt::Display for Basket {
    const X: u32 = 3; // @3
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let add = |a: u32| {
            a + 1 // @4
        };
        Ok(())
    }
}

macro_rules! go {
    () => { 1 }; // @5
}

mod tests {
    #[test]
    fn works() {
        go!(); // @6
    }
}

trait Shop {
    fn open(&self); // @7
}
"""
RUBY = """
require "set" # @1

module Shop
  class Basket
    attr_reader :size # @2

    def self.build(size)
      new(size) # @3
    end

    def total
      items.each do |item|
        add(item) # @4
      end
    end
  end
end

RSpec.describe "x" do
  it "adds" do
    go # @5
  end
end
"""
PHP = """
<?php
namespace App; // @1

final class Basket
{
    private int $size; // @2

    #[Pure] // @3
    public function total(): int
    {
        return array_map(function ($item) {
            return $item->price; // @4
        }, $this->items);
    }
}

function main(): void
{
    go(); // @5
}

trait Sized {
    public $x; // @6
}
"""
CSHARP = """
using System; // @1

namespace Shop
{
    public class Basket
    {
        private int size; // @2

        public Basket(int size)
        {
            this.size = size; // @3
        }

        [Obsolete] // @4
        public int Total()
        {
            return items.Select(item =>
            {
                return item.Price; // @5
            });
        }

        public int Size
        {
            get { return size; } // @6
        }
    }
}
"""
KOTLIN = """
package org.example // @1

class Basket(val size: Int) {
    val limit = 3 // @2

    init {
        check(size) // @3
    }

    companion object {
        fun build(): Basket {
            return Basket(1) // @4
        }
    }

    override fun total(): Int {
        return items.sumOf { item ->
            item.price // @5
        }
    }
}

object Shop {
    val x = 1 // @6
}

fun main() {
    go() // @7
}
"""
BASH = """
#!/bin/bash
set -eu # @1

build() {
  make # @2
}

function deploy {
  (
    make # @3
  )
}
"""
YAML = """
# pipeline
stages: [build] # @1

.base: &base
  image: python # @2

"build job":
  script:
    - make # @3
    - |
      echo "not a key: @4"
  rules:
  - if: $CI # @5

# @6
---
on:
- push # @7
- pull
"""

Found = tuple[str, str, int, int]
FOUND: dict[str, tuple[str, list[Found | None]]] = {
    "shop.py": (
        PYTHON,
        [
            None,
            ("Basket", "class", 7, 24),
            ("Basket.total", "function", 12, 21),
            ("Basket.add", "function", 17, 18),
            ("Basket.total", "function", 12, 21),
            ("Basket.Item", "class", 23, 24),
            ("main", "function", 27, 34),
            ("main", "function", 27, 34),
        ],
    ),
    "shop.go": (
        GO,
        [
            None,
            ("Server", "type", 4, 6),
            ("Server.Run", "method", 8, 13),
            ("Cache.Get", "method", 15, 17),
            ("main", "function", 19, 21),
            ("", "function", 23, 25),
        ],
    ),
    "Shop.java": (
        JAVA,
        [
            None,
            ("Basket", "class", 4, 36),
            ("Basket", "function", 7, 9),
            ("Basket.Basket", "constructor", 11, 13),
            ("Basket.total", "method", 15, 21),
            ("Basket.total", "method", 15, 21),
            ("Basket.Item", "interface", 23, 25),
            ("Basket.Color", "enum", 27, 29),
            ("Basket.Point.Point", "compact constructor", 32, 34),
        ],
    ),
    "shop.mjs": (
        JAVASCRIPT,
        [
            None,
            ("total", "function", 4, 6),
            ("Basket", "class", 8, 20),
            ("Basket.onClick", "function", 11, 13),
            ("Basket.total", "method", 15, 19),
            ("exports.run", "function", 22, 24),
            ("", "function", 27, 29),
            ("get", "function", 33, 35),
            ("numbers", "generator function", 38, 40),
        ],
    ),
    "shop.ts": (
        TYPESCRIPT,
        [
            ("Basket", "class", 2, 12),
            ("Basket.total", "method", 6, 8),
            ("Basket.run", "function", 9, 11),
            ("Item", "interface", 13, 15),
            ("Shop.Color", "enum", 17, 19),
            ("main", "function", 21, 23),
            ("Base", "abstract class", 25, 27),
        ],
    ),
    "Shop.tsx": (TSX, [("click", "function", 3, 5), ("App", "function", 2, 9)]),
    "shop.c": (
        C,
        [
            None,
            ("basket", "struct", 4, 6),
            ("item_t", "type", 8, 10),
            ("LOOP", "preproc function", 12, 14),
            ("find", "function", 16, 20),
            None,
        ],
    ),
    "shop.hpp": (
        CPP,
        [
            ("shop", "namespace", 2, 23),
            ("shop.Basket.~Basket", "function", 8, 10),
            ("shop.Basket.operator=", "function", 11, 13),
            ("shop.Basket", "class", 5, 15),
            ("shop.Basket<T>::total", "function", 17, 22),
            ("shop.Basket<T>::total", "function", 17, 22),
            None,
        ],
    ),
    "shop.rs": (
        RUST,
        [
            None,
            ("Basket", "struct", 4, 6),
            ("Basket", "impl", 8, 16),
            ("Basket.fmt", "function", 10, 15),
            ("go", "macro", 18, 20),
            ("tests.works", "function", 24, 26),
            ("Shop", "trait", 29, 31),
        ],
    ),
    "shop.rb": (
        RUBY,
        [
            None,
            ("Shop.Basket", "class", 5, 17),
            ("Shop.Basket.build", "singleton method", 8, 10),
            ("Shop.Basket.total", "method", 12, 16),
            ("", "function", 21, 23),
        ],
    ),
    "shop.php": (
        PHP,
        [
            None,
            ("Basket", "class", 5, 16),
            ("Basket.total", "method", 9, 15),
            ("Basket.total", "method", 9, 15),
            ("main", "function", 18, 21),
            ("Sized", "trait", 23, 25),
        ],
    ),
    "Shop.cs": (
        CSHARP,
        [
            None,
            ("Shop.Basket", "class", 6, 28),
            ("Shop.Basket.Basket", "constructor", 10, 13),
            ("Shop.Basket.Total", "method", 15, 22),
            ("Shop.Basket.Total", "method", 15, 22),
            ("Shop.Basket.Size", "property", 24, 27),
        ],
    ),
    "Shop.kt": (
        KOTLIN,
        [
            None,
            ("Basket", "class", 4, 22),
            ("Basket", "function", 7, 9),
            ("Basket.build", "function", 12, 14),
            ("Basket.total", "function", 17, 21),
            ("Shop", "object", 24, 26),
            ("main", "function", 28, 30),
        ],
    ),
    "shop.sh": (BASH, [None, ("build", "function", 5, 7), ("deploy", "function", 9, 13)]),
    ".gitlab-ci.yml": (
        YAML,
        [
            None,
            (".base", "key", 5, 6),
            ("build job", "key", 8, 14),
            ("build job", "key", 8, 14),
            ("build job", "key", 8, 14),
            None,
            ("on", "key", 18, 20),
        ],
    ),
}
PLACES = [(path, mark, found) for path, (_, all_found) in FOUND.items() for mark, found in enumerate(all_found, 1)]
PATHS = [*FOUND, "README.md"]


def find(source: str, path: str, first: int, last: int) -> Found | None:
    found = enclosing(source, path, first, last)
    return (found.name, found.kind, found.start, found.end) if found else None


@pytest.mark.parametrize(("path", "mark", "expected"), PLACES)
def test_finds_what_encloses_a_line(path: str, mark: int, expected: Found | None) -> None:
    source = FOUND[path][0]
    line = next(number for number, text in enumerate(source.split("\n"), 1) if f"@{mark}" in text)
    assert find(source, path, line, line) == expected
    assert find(source.replace("\n", "\r\n"), path, line, line) == expected


def test_every_language_has_a_sample() -> None:
    assert {language_of(path) for path in FOUND} == {*context._GRAMMARS, "yaml"}


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("A.PY", "python"),
        ("Gemfile", "ruby"),
        ("lib/Rakefile", "ruby"),
        (".bashrc", "bash"),
        ("x.d.ts", "typescript"),
        ("x.h", "cpp"),
        ("x.py/readme", None),
        ("Makefile", None),
        (".py", None),
        ("", None),
    ],
)
def test_a_name_tells_the_language(path: str, language: str | None) -> None:
    assert language_of(path) == language


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (12, 24, ("Basket", "class", 7, 24)),  # two members
        (16, 18, ("Basket.total", "function", 12, 21)),  # more than the inner function
        (7, 28, None),  # a class and a function
        (25, 26, None),  # blank lines between the two
    ],
)
def test_covers_all_the_lines(first: int, last: int, expected: Found | None) -> None:
    assert find(PYTHON, "shop.py", first, last) == expected


@pytest.mark.parametrize(("first", "last"), [(0, 1), (-3, -1), (3, 2), (35, 35), (30, 99)])
def test_lines_outside_of_the_file_have_no_context(first: int, last: int) -> None:
    assert enclosing(PYTHON, "shop.py", first, last) is None


def test_what_stands_on_one_line_is_passed_over() -> None:
    source = "class A:\n    def f(self): return 1\n    def g(self): return 2\n"
    assert find(source, "a.py", 2, 2) == ("A", "class", 1, 3)
    assert enclosing("def f(): return 1\n", "a.py", 1, 1) is None


def test_the_text_is_that_of_the_lines() -> None:
    found = enclosing("x = 1\ndef f():\r\n    # \u2028 \f é\n    return '\r'\ny = 2", "a.py", 3, 3)
    assert found is not None
    assert (found.start, found.end) == (2, 4)
    assert found.text == "def f():\r\n    # \u2028 \f é\n    return '\r'"


@pytest.mark.parametrize("odd", ["\r", "\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\0", "\ud800", "\ufeff"])
def test_only_a_line_feed_ends_a_line(odd: str) -> None:
    source = f"# {odd} {odd}\ns = '{odd}'\ndef f():\n    return 1\n"
    assert find(source, "a.py", 4, 4) == ("f", "function", 3, 4)


def test_a_syntax_error_elsewhere_does_no_harm() -> None:
    assert find(PYTHON + "\ndef broken(:\n  ((\n", "shop.py", 18, 18) == ("Basket.add", "function", 17, 18)


def test_names_are_short_and_on_one_line() -> None:
    long = "x" * 1000
    source = f"void {long}::\n  f() {{\n}}\n"
    found = enclosing(source, "a.cpp", 2, 2)
    assert found is not None
    assert found.name == long[:100]
    nested = "".join(f"namespace n{depth} {{\n" for depth in range(50)) + "void f() {\n}\n" + "}\n" * 50
    assert find(nested, "a.cpp", 52, 52) == ("n47.n48.n49.f", "function", 51, 52)


def test_a_large_file_is_not_read() -> None:
    source = "def f():\n    return 1\n"
    assert enclosing(source + "#" * 128 * 1024, "a.py", 1, 1) is None
    assert enclosing("a:\n  b: 1\n" + "#" * 128 * 1024, "a.yml", 1, 1) is None


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a.java", "a<" * 50_000),  # 7 GB and minutes when it is not given up
        ("a.js", "else if (a) b " * 7_000),
        ("a.cs", "f'{" * 40_000),
    ],
)
def test_gives_up_what_takes_too_long(path: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_MAX_SECONDS", 0.05)
    assert enclosing(f"{source}\n", path, 1, 1) is None
    assert context._parse(language_of(path) or "", f"{source}\n".encode()) is None


@pytest.mark.no_cover  # a tracer would take most of the time
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "deep",
    [
        "(" * 20_000,
        "[" * 20_000 + "]" * 20_000,
        "{" * 20_000,
        "- " * 20_000,
        "\n".join(" " * depth + "a:" for depth in range(400)),
        "\n".join(" " * depth + "if x:" for depth in range(400)),
        "\0" * 50_000,
        " " * 100_000,
    ],
    ids=["open", "pairs", "braces", "items", "keys", "ifs", "nul", "blanks"],
)
def test_deep_nesting_does_not_overflow(path: str, deep: str) -> None:
    middle = 1 + deep.count("\n") // 2
    found = enclosing(deep, path, middle, middle)
    assert found is None or found.start <= middle <= found.end


JOB = "".join(f"    - step {number}\n" for number in range(70))


@pytest.mark.parametrize(
    ("source", "first", "last", "expected"),
    [
        (f"job:\n  script:\n{JOB}  tags: [x]\n", 9, 9, ("job.script", "key", 2, 72)),
        (f"job:\n  before:\n    - a\n    - b\n  script:\n{JOB}", 3, 4, ("job.before", "key", 2, 4)),
        (f"job:\n  script:\n{JOB}", 9, 10, ("job.script", "key", 2, 72)),  # long, and nothing inside holds both
        ("a: 1\nb: 2\n", 1, 2, None),
        ("- hosts: x\n  tasks:\n  - name: y\n    run: z\n", 4, 4, ("", "item", 1, 4)),
        ("a:\n- b\n- c\nd: 1\n", 3, 3, ("a", "key", 1, 3)),
        ("a:\n- b\n- c\n", 1, 1, ("a", "key", 1, 3)),
        ("a:\n  b: |\n    x: 1\n\n    y\n  c: 2\n", 5, 5, ("a", "key", 1, 6)),
        ("# about a\na:\n  b: 1\n  # more\n", 1, 4, ("a", "key", 1, 4)),
        ("# only\n\n", 1, 2, None),
        ("a:\n  b: 1\n---\nc:\n  d: 1\n", 2, 2, ("a", "key", 1, 2)),
        ("a:\n  b: 1\n---\nc:\n  d: 1\n", 5, 5, ("c", "key", 4, 5)),
        ("a:\n  b: 1\n---\n", 3, 3, None),
        ("{{- if .x }}\nspec:\n{{- if .y }}\n  b: 1\n{{- end }}\n  c: 1\n{{- end }}\n", 4, 6, ("spec", "key", 2, 6)),
        ("just text\nover lines\n", 1, 2, None),
        ("   a:\n b:\n  c\n", 3, 3, ("b", "key", 2, 3)),
        ("'quoted: key' :\n  1\n", 1, 1, ("quoted: key", "key", 1, 2)),
        ("image:tag:\n  1\n", 1, 1, ("image:tag", "key", 1, 2)),
        ("-x:\n  1\n", 1, 1, ("-x", "key", 1, 2)),
    ],
)
def test_yaml_goes_by_indentation(source: str, first: int, last: int, expected: Found | None) -> None:
    assert find(source, "a.yaml", first, last) == expected


def words(path: str) -> list[str]:
    """Pieces of the sample of a language: what comes of them is nearly a program."""
    source = FOUND.get(path, (PYTHON,))[0]
    return [*source.split("\n"), *source.split(), "\n", "\n", "  ", "\r\n", "\r", "\u2028", "\f", "\0", "{", "}", "é"]


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PATHS), data=st.data())
def test_covers_the_lines_or_finds_nothing(path: str, data: st.DataObject) -> None:
    pieces = st.lists(st.sampled_from(words(path)), max_size=40).map("".join)
    source = data.draw(pieces | st.text(st.characters(codec=None), max_size=80))
    first = data.draw(st.integers(-1, source.count("\n") + 2))
    last = data.draw(st.integers(first - 1, source.count("\n") + 2))
    found = enclosing(source, path, first, last)
    if found is not None:
        lines = source.split("\n")
        assert 1 <= found.start <= first <= last <= found.end <= len(lines)
        assert found.text == "\n".join(lines[found.start - 1 : found.end])
        assert "\n" not in found.name
        assert enclosing(source, path, first, last) == found


@pytest.mark.parametrize("path", FOUND)
def test_every_line_of_a_mangled_sample(path: str) -> None:
    source = FOUND[path][0]
    dice = random.Random(path)  # noqa: S311 -- a fixed sequence, nothing secret
    for _ in range(10):
        cut = sorted(dice.sample(range(len(source)), 2))
        mangled = source[: cut[0]] + source[cut[1] :]
        count = mangled.count("\n")
        for line in range(1, count + 1):
            found = enclosing(mangled, path, line, line)
            assert found is None or found.start <= line <= found.end <= count
