"""The enclosing function or class of changed lines, so that the student sees more than the hunk.

tree-sitter reads every language but YAML. YAML goes by indentation: `tree-sitter-yaml` 0.7.2 writes past its
buffer at 250 open levels (520 bytes of `- - - …` kill the process), and it cannot read Helm's templates.

The source may be hostile, and tree-sitter's time and memory are not linear in it: a file longer than
`_MAX_CHARACTERS` is not read, and one that takes longer than `_MAX_SECONDS` (thirty times what an honest file of
that length takes) is given up. Both give None, like every other text in which nothing is found. What stays: at the
end of a file tree-sitter cannot be stopped, and 128 KB made for it (`template<` 14,000 times, as Java or C#) still
cost it up to 3 GB for some seconds. Only a process of its own with a limit on its memory could hold that.
"""

import functools
import importlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

_MAX_CHARACTERS = 128 * 1024
_MAX_SECONDS = 0.5  # CPU time of this thread, so that a busy machine gives the same answer as an idle one
_YAML_LINES = 60  # a YAML block that is longer gives way to the widest block inside it that is not
_NAME_CHARACTERS = 100
_OUTER_NAMES = 3
_YAML_DOCUMENT = ("---", "...")


@dataclass(frozen=True, slots=True)
class Enclosing:
    """The function, class or block around changed lines.

    Args:
        name: `Class.method`; of a function without a name only what stands around it, which can be "".
        kind: what it is, in a word or two: function, method, class, struct, impl, key, …
        start: its first line, counted from 1.
        end: its last line, included.
        text: lines `start` to `end` as they stand in the source, without the ending of the last one.
    """

    name: str
    kind: str
    start: int
    end: int
    text: str


class _Block(NamedTuple):
    """Something found in a source; `start` and `end` (included) count from 0."""

    name: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Grammar:
    """Where a language's grammar is, and the node types of what can enclose; several with a blank between."""

    package: str
    functions: str
    containers: str = ""
    closures: str = ""  # functions that have no name of their own
    entry: str = "language"


_JS_FUNCTIONS = "function_declaration generator_function_declaration method_definition"
_JS_CLOSURES = "arrow_function function_expression generator_function class_static_block"
_TS_CONTAINERS = (
    "class_declaration abstract_class_declaration interface_declaration enum_declaration internal_module module"
)
_C_FUNCTIONS = "function_definition preproc_function_def"
_C_CONTAINERS = "struct_specifier union_specifier enum_specifier type_definition"
_GRAMMARS: Mapping[str, _Grammar] = {
    "python": _Grammar("tree_sitter_python", "function_definition", "class_definition"),
    "go": _Grammar("tree_sitter_go", "function_declaration method_declaration", "type_spec", "func_literal"),
    "java": _Grammar(
        "tree_sitter_java",
        "method_declaration constructor_declaration compact_constructor_declaration",
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration",
        "lambda_expression static_initializer",
    ),
    "javascript": _Grammar("tree_sitter_javascript", _JS_FUNCTIONS, "class_declaration", _JS_CLOSURES),
    "typescript": _Grammar(
        "tree_sitter_typescript", _JS_FUNCTIONS, _TS_CONTAINERS, _JS_CLOSURES, "language_typescript"
    ),
    "tsx": _Grammar("tree_sitter_typescript", _JS_FUNCTIONS, _TS_CONTAINERS, _JS_CLOSURES, "language_tsx"),
    "c": _Grammar("tree_sitter_c", _C_FUNCTIONS, _C_CONTAINERS),
    "cpp": _Grammar(
        "tree_sitter_cpp",
        _C_FUNCTIONS,
        f"{_C_CONTAINERS} class_specifier namespace_definition",
        "lambda_expression",
    ),
    "rust": _Grammar(
        "tree_sitter_rust",
        "function_item macro_definition",
        "impl_item trait_item struct_item enum_item union_item mod_item",
        "closure_expression",
    ),
    "ruby": _Grammar("tree_sitter_ruby", "method singleton_method", "class module", "do_block block lambda"),
    "php": _Grammar(
        "tree_sitter_php",
        "function_definition method_declaration",
        "class_declaration interface_declaration trait_declaration enum_declaration",
        "anonymous_function arrow_function",
        "language_php",
    ),
    "c#": _Grammar(
        "tree_sitter_c_sharp",
        "method_declaration constructor_declaration destructor_declaration property_declaration"
        " local_function_statement",
        "class_declaration struct_declaration interface_declaration enum_declaration record_declaration"
        " namespace_declaration",
        "lambda_expression anonymous_method_expression operator_declaration conversion_operator_declaration",
    ),
    "kotlin": _Grammar(
        "tree_sitter_kotlin",
        "function_declaration",
        "class_declaration object_declaration",
        "lambda_literal anonymous_function anonymous_initializer secondary_constructor",
    ),
    "bash": _Grammar("tree_sitter_bash", "function_definition"),
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
        "cpp": ".cc .cpp .cxx .cu .h .hh .hpp .hxx .inl .ipp",  # .h: the grammar of C++ reads C as well
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
}
# What wraps a definition in its last child: decorators and template parameters belong to the definition.
_WRAPPERS = frozenset({"decorated_definition", "export_statement", "template_declaration"})
# What gives a closure a name: the fields that hold the closure and the name.
_BINDINGS = {
    "variable_declarator": ("value", "name"),
    "pair": ("value", "key"),
    "field_definition": ("value", "property"),
    "public_field_definition": ("value", "name"),
    "assignment_expression": ("right", "left"),
}
_KIND_ENDINGS = re.compile(r"_(?:declaration|definition|specifier|statement|item|spec|def)\Z")
_YAML_OPENER = re.compile(
    r"""[ \t]*(?:
        (?P<item>-)(?=[ \t\r]|\Z)
        |(?P<key>"[^"]*"|'[^']*'|(?:[^\s"'\#{}\[\],&*!|>%@`-]|-(?=\S))(?:[^:\#]|:(?=\S))*+)[ \t]*:(?=\s|\Z)
    )""",
    re.VERBOSE,
)
_GO_RECEIVER = re.compile(r"(\w+)(?:\[[^\[\]]*\])?\s*\)\Z")


def language_of(path: str) -> str | None:
    """The language of a file by its name, or None where `enclosing` cannot help."""
    file = PurePosixPath(path)
    return _FILENAMES.get(file.name.lower()) or _SUFFIXES.get(file.suffix.lower())


def enclosing(source: str, path: str, first: int, last: int) -> Enclosing | None:
    r"""The smallest named function that covers lines `first` to `last`, else the smallest class or closure.

    What stands on a single line is passed over: it tells no more than the change does.

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
    if language is None or not 1 <= first <= last <= count or len(source) > _MAX_CHARACTERS:
        return None
    if language == "yaml":
        block = _in_yaml(lines, first - 1, last - 1)
    else:
        block = _in_code(source, language, first - 1, last - 1)
    if block is None:
        return None
    text = "\n".join(lines[block.start : block.end + 1])
    return Enclosing(block.name, block.kind, block.start + 1, block.end + 1, text)


@functools.cache
def _language(name: str) -> "Language":
    from tree_sitter import Language  # noqa: PLC0415 -- imported late: many commands need no grammar

    grammar = _GRAMMARS[name]
    return Language(getattr(importlib.import_module(grammar.package), grammar.entry)())


@functools.lru_cache(maxsize=2)  # the hunks of one file are asked for one after the other
def _parse(language: str, data: bytes) -> "Tree | None":
    from tree_sitter import Parser  # noqa: PLC0415 -- imported late: many commands need no grammar

    parser = Parser(_language(language))
    view = memoryview(data)
    give_up = time.thread_time() + _MAX_SECONDS
    try:
        # Only what is read through a callback can be given up: by True from the other callback.
        return parser.parse(
            lambda offset, _point: view[offset:],
            progress_callback=lambda _offset, _has_error: time.thread_time() > give_up,
        )
    except ValueError:
        return None


def _in_code(source: str, language: str, first: int, last: int) -> _Block | None:
    # The lexer of bash goes over the rest of the file again at each NUL.
    data = source.encode("utf-8", "replace").replace(b"\0", b" ")
    tree = _parse(language, data)
    if tree is None:
        return None
    grammar = _GRAMMARS[language]
    functions: list[tuple[Node, Node, str]] = []  # the node, the definition inside it, its name
    containers: list[tuple[Node, Node, str]] = []
    closures: list[tuple[Node, Node, str]] = []
    seen: set[int] = set()
    for node in _covering(tree, first, last):
        inner, name = _unwrap(node, data)
        if inner.id in seen:  # with its wrapper
            continue
        if inner.type in grammar.functions.split():
            functions.append((node, inner, _name(inner, data)))
        elif inner.type in grammar.containers.split() and (own := _name(inner, data)):
            containers.append((node, inner, own))
        elif inner.type in grammar.closures.split():
            (functions if name else closures).append((node, inner, name))
        else:
            continue
        seen.add(inner.id)
    found = min(functions or containers + closures, key=lambda item: _size(item[0]), default=None)
    if found is None:
        return None
    node, inner, name = found
    outer = [text for around, _, text in containers if _size(around) > _size(node)]
    names = ".".join(filter(None, [*outer[-_OUTER_NAMES:], name]))
    kind = "function" if inner.type in grammar.closures.split() else _KIND_ENDINGS.sub("", inner.type)
    return _Block(names, kind.replace("_", " "), node.start_point.row, _end_row(node))


def _covering(tree: "Tree", first: int, last: int) -> "Iterator[Node]":
    """The nodes of more than one line that cover the rows, outer before inner."""
    cursor = tree.walk()
    while True:
        node = cast("Node", cursor.node)
        if node.start_point.row <= first and last <= _end_row(node) > node.start_point.row:
            yield node
            if cursor.goto_first_child_for_point((first, 0)) is not None:
                continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _end_row(node: "Node") -> int:
    """The last row with something of the node on it: the end of a node can be the start of the next line."""
    end = node.end_point
    return end.row - (end.column == 0 and end.row > node.start_point.row)


def _size(node: "Node") -> int:
    return node.end_byte - node.start_byte


def _unwrap(node: "Node", data: bytes) -> "tuple[Node, str]":
    """The definition inside a wrapper, or the closure inside a binding with the name it has from there."""
    while node.type in _WRAPPERS and node.named_child_count:
        node = node.named_child(node.named_child_count - 1)
    value, key = _BINDINGS.get(node.type, ("", ""))
    inner = node.child_by_field_name(value) if value else None
    return (node, "") if inner is None else (inner, _text(node.child_by_field_name(key), data))


def _name(node: "Node", data: bytes) -> str:
    own = node.child_by_field_name("type" if node.type == "impl_item" else "name")
    if own is not None:
        receiver = _GO_RECEIVER.search(_text(node.child_by_field_name("receiver"), data))
        return f"{receiver[1]}.{_text(own, data)}" if receiver else _text(own, data)
    inner = node.child_by_field_name("declarator")  # C: int *NAME(void)
    while inner is not None:
        own = inner
        inner = own.child_by_field_name("declarator")
        if own.type == "reference_declarator":  # the only one without the field
            inner = own.child(own.child_count - 1)
    return _text(own, data)


def _text(node: "Node | None", data: bytes) -> str:
    if node is None:
        return ""
    text = data[node.start_byte : node.end_byte].decode("utf-8", "replace")
    return " ".join(text.split())[:_NAME_CHARACTERS]


class _Opener(NamedTuple):
    """A line of YAML that opens a block: a key, or an item of a sequence (its key is "")."""

    row: int
    indent: int
    key: str


def _in_yaml(lines: list[str], first: int, last: int) -> _Block | None:
    """The block of the top-level key, narrowed where it is long.

    Indentation decides, so that templates and broken files can be read too.
    """
    changed = [row for row in range(first, last + 1) if _has_structure(lines[row])]
    if not changed:
        return None
    openers = _openers(lines, changed[0])
    ends = _ends(lines, openers, changed[0])
    depths = [depth for depth, end in enumerate(ends) if end >= changed[-1] and end > openers[depth].row]
    if not depths:
        return None
    depth = next((one for one in depths if ends[one] - openers[one].row < _YAML_LINES), depths[-1])
    names = [opener.key for opener in openers[: depth + 1] if opener.key]
    return _Block(
        ".".join(names[-_OUTER_NAMES - 1 :]),
        "key" if openers[depth].key else "item",
        min(openers[depth].row, first),  # what is changed may begin or end with comments
        max(ends[depth], last),
    )


def _openers(lines: list[str], row: int) -> list[_Opener]:
    """What opens the blocks around a row, outermost first; the row itself can be the last."""
    found: list[_Opener] = []
    limit = _indent(lines[row]) + 1
    for above in range(row, -1, -1):
        if lines[above].startswith(_YAML_DOCUMENT):
            break
        match = _YAML_OPENER.match(lines[above])
        if match is None:
            continue
        opener = _Opener(above, _indent(lines[above]), (match["key"] or "").strip(" \t\"'")[:_NAME_CHARACTERS])
        if opener.indent < limit or (found and _owns(opener, found[-1])):
            found.append(opener)
            limit = opener.indent
    return found[::-1]


def _ends(lines: list[str], openers: list[_Opener], row: int) -> list[int]:
    """The last row of the block of each opener; all of them hold `row`."""
    ends = [row] * len(openers)
    open_blocks = len(openers)
    for below in range(row + 1, len(lines)):
        if not _has_structure(lines[below]):
            continue
        indent = _indent(lines[below])
        match = _YAML_OPENER.match(lines[below])
        item = _Opener(below, indent, "") if match and match["item"] else None
        while open_blocks:
            opener = openers[open_blocks - 1]
            if indent > opener.indent or (item and _owns(opener, item)):
                break
            open_blocks -= 1
        if not open_blocks:
            break
        ends[:open_blocks] = [below] * open_blocks
    return ends


def _owns(opener: _Opener, item: _Opener) -> bool:
    """The items of a sequence may stand as far left as the key that they belong to."""
    return opener.indent == item.indent and bool(opener.key) and not item.key


def _has_structure(line: str) -> bool:
    """False for blank lines, comments and the directives of templates."""
    return bool(line.strip()) and not line.lstrip().startswith(("#", "{{", "{%"))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
