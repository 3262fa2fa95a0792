"""The function or class around changed lines: what a reviewer reads besides the diff.

One tree-sitter grammar per language, imported when the first file of that language comes. A file is hostile until
proven otherwise: it is bounded in size and in the processor time its parse may take, and a file that is refused is
reviewed without what stands around its changes.
"""

import functools
import importlib
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

MAX_BYTES = 250_000
"""A larger file is not parsed."""
MAX_SECONDS = 1.0
"""Processor time of one parse; some text takes grammars hours (nested `/*` in Kotlin, for one)."""

# extensions -> (module, the function in it that gives the grammar)
_GRAMMARS = {
    "py pyi": ("tree_sitter_python", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "js jsx mjs cjs": ("tree_sitter_javascript", "language"),
    "ts mts cts": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "c h": ("tree_sitter_c", "language"),
    "cc cpp cxx hh hpp hxx": ("tree_sitter_cpp", "language"),
    "rs": ("tree_sitter_rust", "language"),
    "rb rake": ("tree_sitter_ruby", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "cs": ("tree_sitter_c_sharp", "language"),
    "kt kts": ("tree_sitter_kotlin", "language"),
    "sh bash": ("tree_sitter_bash", "language"),
    "yml yaml": ("tree_sitter_yaml", "language"),
}
_BY_EXTENSION = {extension: grammar for extensions, grammar in _GRAMMARS.items() for extension in extensions.split()}
_BY_NAME = {"Rakefile": "rb", "Gemfile": "rb", ".bashrc": "sh", ".profile": "sh"}

_FUNCTIONS = frozenset(
    "function_definition function_declaration method_declaration method_definition function_item method "
    "singleton_method constructor_declaration destructor_declaration compact_constructor_declaration "
    "secondary_constructor local_function_statement operator_declaration generator_function_declaration "
    "property_declaration lexical_declaration".split()
)
_CONTAINERS = frozenset(
    "class_definition class_declaration class_specifier struct_specifier struct_item struct_declaration impl_item "
    "trait_item trait_declaration mod_item enum_item enum_declaration enum_specifier interface_declaration "
    "record_declaration object_declaration type_declaration class module block_mapping_pair".split()
)
_WRAPPERS = frozenset({"decorated_definition", "export_statement", "template_declaration"})


@dataclass(frozen=True, slots=True)
class Enclosing:
    """A function or class, by whole lines: `start` to `end`, counted from 1; `text` holds them."""

    start: int
    end: int
    text: str


def enclosing(source: str, path: str, first: int, last: int) -> Enclosing | None:
    """Find the smallest function that covers these lines, else the smallest class (in YAML: the top-level key).

    Args:
        source: the whole file.
        path: its path, which tells the language.
        first: first line, from 1.
        last: last line.

    Returns:
        None where nothing covers them, the language is not known, or the file is too large or too odd to parse.
    """
    grammar = _grammar_of(path)
    lines = source.split("\n")
    telling = [number for number in range(first, last + 1) if number <= len(lines) and lines[number - 1].strip()]
    if grammar is None or not telling:
        return None
    tree = _parse(source, grammar)
    if tree is None:
        return None
    node = _chosen(_smallest(tree, lines, telling[0], telling[-1]))
    if node is None:
        return None
    start, end = node.start_point.row + 1, node.end_point.row + (node.end_point.column > 0)
    return Enclosing(start, end, "\n".join(lines[start - 1 : end]))


def _grammar_of(path: str) -> tuple[str, str] | None:
    name = PurePosixPath(path).name
    return _BY_EXTENSION.get(_BY_NAME.get(name, name.rpartition(".")[2].lower()))


@functools.cache
def _language(grammar: tuple[str, str]) -> "Language":
    from tree_sitter import Language  # noqa: PLC0415 -- imported late: many changes need no grammar

    module, function = grammar
    return Language(getattr(importlib.import_module(module), function)())


@functools.lru_cache(maxsize=8)
def _parse(source: str, grammar: tuple[str, str]) -> "Tree | None":
    """Parse the file once for all its hunks; None when it is too large or takes too long."""
    from tree_sitter import Parser  # noqa: PLC0415 -- as above

    code = source.encode("utf-8", "replace").replace(b"\0", b" ")  # NUL ends the file for some grammars
    if len(code) > MAX_BYTES:
        return None
    deadline = time.thread_time() + MAX_SECONDS
    try:
        return Parser(_language(grammar)).parse(
            lambda offset, _: code[offset : offset + 4096], progress_callback=lambda *_: time.thread_time() > deadline
        )
    except ValueError:  # how the library says that the callback stopped it
        return None


def _smallest(tree: "Tree", lines: list[str], first: int, last: int) -> "Node | None":
    """The smallest node that covers the lines from their first to their last sign."""

    def column(text: str) -> int:
        return len(text.encode("utf-8", "replace"))

    head, tail = lines[first - 1], lines[last - 1]
    return tree.root_node.descendant_for_point_range(
        (first - 1, column(head) - column(head.lstrip())), (last - 1, column(tail.rstrip()))
    )


def _chosen(node: "Node | None") -> "Node | None":
    """Climb to the first function, else to the first class (for YAML the last), with what wraps it."""
    container = None
    while node is not None and node.parent is not None:
        if node.type in _FUNCTIONS:
            return _wrapped(node)
        if node.type in _CONTAINERS and (container is None or node.type == "block_mapping_pair"):
            container = node
        node = node.parent
    return _wrapped(container) if container else None


def _wrapped(node: "Node") -> "Node":
    while node.parent is not None and node.parent.type in _WRAPPERS:
        node = node.parent
    return node
