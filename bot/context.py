"""The enclosing function or class of changed lines, so that the student sees more than the hunk.

tree-sitter reads every language but YAML. YAML goes by indentation: `tree-sitter-yaml` 0.7.2 writes past its
buffer at 250 open levels (520 bytes of `- - - …` kill the process), and it cannot read Helm templates.

The source may be hostile. tree-sitter's time and memory are not linear in it, so a file is not read when it is
longer than `_MAX_BYTES`, and given up when it takes longer than `_MAX_SECONDS` (an honest file of that size takes
a thirtieth). Both cases give None, like every other text in which nothing is found.
"""

import functools
import importlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

_MAX_BYTES = 128 * 1024
_MAX_SECONDS = 0.5  # of this thread's CPU time, so that a busy machine gives the same answer as an idle one
_YAML_LINES = 60  # a longer YAML block is narrowed to the outermost inner one that is not
_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Enclosing:
    """The function, class or block around changed lines.

    Args:
        name: `Class.method` where that is known; "" for a function without a name.
        kind: what it is, in one word: function, method, class, struct, impl, key, …
        start: its first line, counted from 1.
        end: its last line, included.
        text: lines `start` to `end` of the source as they are, without the last line's ending.
    """

    name: str
    kind: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class _Grammar:
    """Where a language's grammar is, and its node types: to their kind for functions and containers."""

    package: str
    functions: Mapping[str, str]
    containers: Mapping[str, str] = field(default_factory=dict)
    closures: frozenset[str] = frozenset()
    entry: str = "language"


_JS_FUNCTIONS = {
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "method_definition": "method",
}
_JS_CLOSURES = frozenset({"arrow_function", "function_expression", "generator_function"})
_TS_CONTAINERS = {
    "class_declaration": "class",
    "abstract_class_declaration": "class",
    "interface_declaration": "interface",
    "enum_declaration": "enum",
    "internal_module": "namespace",
    "module": "module",
}
_C_FUNCTIONS = {"function_definition": "function", "preproc_function_def": "macro"}
_C_CONTAINERS = {
    "struct_specifier": "struct",
    "union_specifier": "union",
    "enum_specifier": "enum",
    "type_definition": "type",
}

_GRAMMARS: Mapping[str, _Grammar] = {
    "python": _Grammar(
        "tree_sitter_python", {"function_definition": "function"}, {"class_definition": "class"}
    ),
    "go": _Grammar(
        "tree_sitter_go",
        {"function_declaration": "function", "method_declaration": "method"},
        {"type_spec": "type"},
        frozenset({"func_literal"}),
    ),
    "java": _Grammar(
        "tree_sitter_java",
        {
            "method_declaration": "method",
            "constructor_declaration": "constructor",
            "compact_constructor_declaration": "constructor",
        },
        {
            "class_declaration": "class",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "record",
            "annotation_type_declaration": "annotation",
        },
        frozenset({"lambda_expression", "static_initializer"}),
    ),
    "javascript": _Grammar(
        "tree_sitter_javascript", _JS_FUNCTIONS, {"class_declaration": "class"}, _JS_CLOSURES
    ),
    "typescript": _Grammar(
        "tree_sitter_typescript", _JS_FUNCTIONS, _TS_CONTAINERS, _JS_CLOSURES, "language_typescript"
    ),
    "tsx": _Grammar("tree_sitter_typescript", _JS_FUNCTIONS, _TS_CONTAINERS, _JS_CLOSURES, "language_tsx"),
    "c": _Grammar("tree_sitter_c", _C_FUNCTIONS, _C_CONTAINERS),
    "cpp": _Grammar(
        "tree_sitter_cpp",
        _C_FUNCTIONS,
        _C_CONTAINERS | {"class_specifier": "class", "namespace_definition": "namespace"},
        frozenset({"lambda_expression"}),
    ),
    "rust": _Grammar(
        "tree_sitter_rust",
        {"function_item": "function", "macro_definition": "macro"},
        {
            "impl_item": "impl",
            "trait_item": "trait",
            "struct_item": "struct",
            "enum_item": "enum",
            "union_item": "union",
            "mod_item": "module",
        },
        frozenset({"closure_expression"}),
    ),
    "ruby": _Grammar(
        "tree_sitter_ruby",
        {"method": "method", "singleton_method": "method"},
        {"class": "class", "module": "module"},
        frozenset({"do_block", "block", "lambda"}),
    ),
    "php": _Grammar(
        "tree_sitter_php",
        {"function_definition": "function", "method_declaration": "method"},
        {
            "class_declaration": "class",
            "interface_declaration": "interface",
            "trait_declaration": "trait",
            "enum_declaration": "enum",
        },
        frozenset({"anonymous_function", "arrow_function"}),
        "language_php",
    ),
    "c#": _Grammar(
        "tree_sitter_c_sharp",
        {
            "method_declaration": "method",
            "constructor_declaration": "constructor",
            "destructor_declaration": "destructor",
            "local_function_statement": "function",
            "property_declaration": "property",
        },
        {
            "class_declaration": "class",
            "struct_declaration": "struct",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "record",
            "namespace_declaration": "namespace",
        },
        frozenset(
            {
                "lambda_expression",
                "anonymous_method_expression",
                "operator_declaration",
                "conversion_operator_declaration",
            }
        ),
    ),
    "kotlin": _Grammar(
        "tree_sitter_kotlin",
        {"function_declaration": "function"},
        {"class_declaration": "class", "object_declaration": "object"},
        frozenset(
            {"lambda_literal", "anonymous_function", "anonymous_initializer", "secondary_constructor"}
        ),
    ),
    "bash": _Grammar("tree_sitter_bash", {"function_definition": "function"}),
}

_SUFFIXES = {
    suffix: language
    for language, suffixes in {
        "python": ".py .pyi .pyw",
        "go": ".go",
        "java": ".java",
        "javascript": ".js .mjs .cjs .jsx",
        "typescript": ".ts .mts .cts",
        "tsx": ".tsx",
        "c": ".c",
        "cpp": ".cc .cpp .cxx .h .hh .hpp .hxx .inl .ipp .cu .cuh",  # .h: the C++ grammar reads C, not so the other
        "rust": ".rs",
        "ruby": ".rb .rake .gemspec .ru",
        "php": ".php .phtml",
        "c#": ".cs",
        "kotlin": ".kt .kts",
        "bash": ".sh .bash .ksh .zsh",
        "yaml": ".yaml .yml",
    }.items()
    for suffix in suffixes.split()
}
_FILENAMES = {
    "gemfile": "ruby",
    "rakefile": "ruby",
    "vagrantfile": "ruby",
    ".bashrc": "bash",
    ".bash_profile": "bash",
    ".profile": "bash",
    ".clang-format": "yaml",
    ".clang-tidy": "yaml",
}

# What wraps a definition in its last child; the wrapper's lines (decorators, template parameters) belong to it.
_WRAPPERS = frozenset({"decorated_definition", "export_statement", "template_declaration"})
# What gives a closure its name, and the fields that hold the closure and the name.
_BINDINGS = {
    "variable_declarator": ("value", "name"),
    "pair": ("value", "key"),
    "field_definition": ("value", "property"),
    "public_field_definition": ("value", "name"),
    "assignment_expression": ("right", "left"),
}



class _Block(NamedTuple):
    """Something found; `start` and `end` count from 0, `end` included."""

    name: str
    kind: str
    start: int
    end: int


def language_of(path: str) -> str | None:
    """The language of a file by its name, or None where `enclosing` cannot help."""
    file = PurePosixPath(path)
    return _FILENAMES.get(file.name.lower()) or _SUFFIXES.get(file.suffix.lower())


def enclosing(source: str, path: str, first: int, last: int) -> Enclosing | None:
    r"""The smallest named function that covers lines `first` to `last`, else the smallest class or closure.

    Args:
        source: the whole file; a line ends with `\n` and with nothing else, as in a diff.
        path: tells the language.
        first: first line, counted from 1.
        last: last line, included.

    Returns:
        None where there is none, where the language is not known, where the lines are not in the file, and for a
        file that is too large or takes too long.
    """
    lines = source.split("\n")
    count = len(lines) - (not lines[-1])  # what follows the last "\n" is a line only if there is something
    language = language_of(path)
    if language is None or not 1 <= first <= last <= count or len(source) > _MAX_BYTES:
        return None
    if language == "yaml":
        block = _in_yaml(lines, first - 1, last - 1)
    else:
        block = _in_code(language, source, first - 1, last - 1)
    if block is None:
        return None
    text = "\n".join(lines[block.start : block.end + 1])
    return Enclosing(block.name, block.kind, block.start + 1, block.end + 1, text)


@functools.cache
def _language(name: str) -> "Language":
    from tree_sitter import Language  # noqa: PLC0415 -- imported late: most commands need no grammar

    grammar = _GRAMMARS[name]
    return Language(getattr(importlib.import_module(grammar.package), grammar.entry)())


@functools.lru_cache(maxsize=2)  # the hunks of a file are asked for one after the other
def _parse(language: str, source: str) -> "tuple[bytes, Tree] | None":
    from tree_sitter import Parser  # noqa: PLC0415 -- imported late: most commands need no grammar

    # NUL: the lexer of bash goes over the rest of the file again at each one.
    data = source.encode("utf-8", "replace").replace(b"\0", b" ")
    view = memoryview(data)
    give_up = time.thread_time() + _MAX_SECONDS
    try:
        # Only a source that is read through a callback can be given up; True gives up.
        tree = Parser(_language(language)).parse(
            lambda offset, _point: view[offset:],
            progress_callback=lambda _offset, _has_error: time.thread_time() > give_up,
        )
    except ValueError:
        return None
    return data, tree


def _in_code(language: str, source: str, first: int, last: int) -> _Block | None:
    parsed = _parse(language, source)
    if parsed is None:
        return None
    data, tree = parsed
    grammar = _GRAMMARS[language]
    functions: list[tuple[Node, str, str]] = []
    containers: list[tuple[Node, str, str]] = []
    closures: list[tuple[Node, str, str]] = []
    named: set[int] = set()  # definitions that were found already, with what wraps them
    for node in _covering(tree, data, first, last):
        inner, name = _unwrap(node)
        if inner.id in named:
            continue
        if inner.type in grammar.functions:
            functions.append((node, _name(inner, data), grammar.functions[inner.type]))
        elif inner.type in grammar.containers and (text := _name(inner, data)):
            containers.append((node, text, grammar.containers[inner.type]))
        elif inner.type in grammar.closures:
            found = functions if name else closures
            found.append((node, _text(name, data), "function"))
        else:
            continue
        named.add(inner.id)
    found = functions or containers + closures
    if not found:
        return None
    node, name, kind = min(found, key=lambda item: item[0].end_byte - item[0].start_byte)
    around = [text for outer, text, _ in containers if outer.id != node.id and _holds(outer, node)]
    return _Block(".".join([*around, name] if name else around), kind, node.start_point.row, _end_row(node))
