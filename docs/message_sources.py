"""The exceptions that the package makes, with their texts, read from its source."""

import ast
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from message_templates import Field, Lines, Template, choice, is_bare, plain, split

PACKAGE = Path(__file__).parents[1] / "src" / "autodiffkit"


class Made(NamedTuple):
    """An exception that is made somewhere.

    Attributes:
        kind: The name of its class.
        template: Its text.
        note: A remedy that is shown below the text and not in it, or nothing.
        place: The file and the line.
    """

    kind: str
    template: Template
    note: Template
    place: str


@functools.cache
def made() -> tuple[Made, ...]:
    """The exceptions, in the order of files and lines; one for each caller that passes a text."""
    return tuple(
        found
        for module in _modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for found in module.made(node)
    )


@functools.cache
def error_classes() -> dict[str, str]:
    """The exception classes that users see, and the first sentence on each."""
    tree = ast.parse((PACKAGE / "_errors.py").read_text())
    found: dict[str, str] = {}
    for node in tree.body:
        bases = {x.id for x in getattr(node, "bases", ()) if isinstance(x, ast.Name)}
        if isinstance(node, ast.ClassDef) and bases & {"Exception", "AutodiffError", *found}:
            found[node.name] = (ast.get_docstring(node) or "").split("\n\n")[0]
    return found


def constructions() -> list[str]:
    """The places where an exception of the package is made."""
    return [
        f"{module.name}:{node.lineno}"
        for module in _modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _called(node) in error_classes()
    ]


_Function = ast.FunctionDef | ast.AsyncFunctionDef
_PYTHONS = ("AttributeError", "TypeError", "ValueError", "RuntimeError")


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
    name: str
    tree: ast.Module

    @functools.cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {x: node for node in ast.walk(self.tree) for x in ast.iter_child_nodes(node)}

    @functools.cached_property
    def functions(self) -> list[_Function]:
        return [x for x in ast.walk(self.tree) if isinstance(x, _Function)]

    def function_of(self, node: ast.AST) -> _Function | None:
        """The function that a node is in."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, _Function):
                return node
        return None

    @functools.cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """What names of the package are imported: the module, and what of it."""
        return {
            name.asname or name.name: (node.module or "", name.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autodiffkit")
            for name in node.names
        }

    def callees(self, call: ast.Call) -> "list[tuple[_Module, _Function]]":
        """The functions of the package that a call may be one of."""
        match call.func:
            case ast.Name(name) if name in self.imported:
                file = self.imported[name][0]
            case ast.Name():
                file = f"autodiffkit.{self.name[:-3]}"
            case ast.Attribute(value=ast.Name(owner)) if owner in self.imported:
                file = ".".join(self.imported[owner])
            case _:
                file = ""  # a method, of whatever class
        found = _definitions().get(_called(call), [])
        if file:
            return [x for x in found if f"autodiffkit.{x[0].name[:-3]}" == file]
        methods = [x for x in found if isinstance(x[0].parents[x[1]], ast.ClassDef)]
        return [x for x in methods if x[0] is self] or methods

    def made(self, call: ast.Call) -> Iterator[Made]:
        kind = _called(call)
        own = kind in error_classes()
        if not own and (kind not in _PYTHONS or not isinstance(self.parents[call], ast.Raise)):
            return
        scope = _Scope(self, self.function_of(call))
        place = f"{self.name}:{call.lineno}"
        templates = scope.templates(call.args[0]) if call.args else []
        given = [x.value for x in call.keywords if x.arg == "remedy"]
        note = scope.text(given[0]) if given else ()
        for template in itertools.chain.from_iterable(map(split, templates)):
            # `AttributeError(name)` is no message: nobody reads it.
            if own or " " in plain(template):
                yield Made(kind, template, note, place)


@functools.cache
def _modules() -> dict[str, _Module]:
    files = sorted(PACKAGE.glob("**/*.py"))
    names = [str(file.relative_to(PACKAGE)) for file in files]
    return {
        name: _Module(name, ast.parse(file.read_text()))
        for name, file in zip(names, files, strict=True)
    }


@functools.cache
def _definitions() -> "dict[str, list[tuple[_Module, _Function]]]":
    found: dict[str, list[tuple[_Module, _Function]]] = {}
    for module in _modules().values():
        for function in module.functions:
            found.setdefault(function.name, []).append((module, function))
    return found


@functools.cache
def _calls() -> "dict[str, list[tuple[_Module, ast.Call]]]":
    found: dict[str, list[tuple[_Module, ast.Call]]] = {}
    for module in _modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                found.setdefault(_called(node), []).append((module, node))
    return found


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


@dataclasses.dataclass(frozen=True)
class _Scope:
    """Where an expression stands, for what its names mean."""

    module: _Module
    function: _Function | None
    arguments: "tuple[tuple[str, Template], ...]" = ()
    way: "tuple[tuple[ast.AST, str], ...]" = ()  # the names that led here

    def templates(self, node: ast.expr) -> list[Template]:
        """What an expression may say: one template, or one for each caller that passes its own."""
        if isinstance(node, ast.Name) and node.id in self._parameters:
            return [
                template
                for caller, argument in self._passed(node.id)
                for template in caller.templates(argument)
            ]
        return [self.text(node)]

    def text(self, node: ast.expr) -> Template:  # noqa: PLR0911  # each kind has its own
        """What an expression says."""
        match node:
            case ast.Constant(value):
                return (str(value),)
            case ast.JoinedStr(values):
                return tuple(part for value in values for part in self.text(value))
            case ast.FormattedValue(value, conversion):
                if isinstance(value, ast.Call):
                    return (Field(_field(value)),)
                found = self.text(value)
                is_shown = conversion == ord("r") or is_bare(found)
                return (Field(_field(value)),) if is_shown else found
            case ast.BinOp(left, ast.Add(), right):
                return self.text(left) + self.text(right)
            case ast.IfExp(_, body, orelse):
                return choice(self.text(body), self.text(orelse))
            case ast.Name(name):
                return self._named(name)
            case ast.Call(func=ast.Name("listed"), args=[lines]):
                return (Lines(self._lines(lines)),)
            case ast.Call():
                return self._returned(node)
            case _:
                return (Field(_field(node)),)

    def _lines(self, node: ast.expr) -> Template:
        if not isinstance(node, ast.List):
            is_table = isinstance(node, ast.Call) and _called(node) == "columns"
            return (Field("rows" if is_table else _field(node)),)
        lines = [
            self._lines(x.value) if isinstance(x, ast.Starred) else self.text(x) for x in node.elts
        ]
        return tuple(part for line in lines for part in ("\n", *line))[1:]

    @property
    def _parameters(self) -> list[str]:
        return [] if self.function is None else [x.arg for x in _parameters(self.function)]

    def _named(self, name: str) -> Template:
        """What a name stands for, if it stands for text."""
        known = dict(self.arguments)
        if name in known:
            return known[name]
        if self.function is None or name in _ALWAYS_FIELDS:
            return (Field(_FIELDS.get(name, name)),)
        step = (self.function, name)
        if step in self.way:  # made of itself, as in `x = [*x]`, or passed on to its own function
            return (Field(_FIELDS.get(name, name)),)
        here = dataclasses.replace(self, way=(*self.way, step))
        assigned = [here.text(x) for x in _assigned(self.function, name)]
        if not assigned and name in self._parameters:
            passed = self._passed(name)
            assigned = [dataclasses.replace(x, way=here.way).text(value) for x, value in passed]
        if not assigned:
            module, known_as = self.module.imported.get(name, ("", name))
            source = _modules().get(f"{module.removeprefix('autodiffkit.')}.py", self.module)
            assigned = [self.text(x) for x in _assigned(source.tree, known_as)]
        options = tuple(dict.fromkeys(assigned))
        if not options or len(options) > _MOST_OPTIONS or any(map(is_bare, options)):
            return (Field(_FIELDS.get(name, name)),)
        return choice(*options)

    def _passed(self, name: str) -> "list[tuple[_Scope, ast.expr]]":
        """The arguments that callers pass for a parameter, and its default."""
        assert self.function is not None
        function, found = self.function, list["tuple[_Scope, ast.expr]"]()
        names = [x for x in self._parameters if x not in {"self", "cls"}]
        for module, call in _calls().get(function.name, []):
            if (self.module, function) not in module.callees(call):
                continue
            given = dict(zip(names, call.args, strict=False))
            given |= {x.arg: x.value for x in call.keywords if x.arg is not None}
            if name in given:
                found.append((_Scope(module, module.function_of(call)), given[name]))
        default = _default(function, name)
        return [*found, *([(self, default)] if default is not None else [])]

    def _returned(self, call: ast.Call) -> Template:
        """What a function of the package returns, if that is text."""
        found = [x for x in self.module.callees(call) if _gives_text(x[1])]
        if len(found) != 1 or _called(call) in _OPAQUE:
            return (Field(_field(call)),)
        module, function = found[0]
        names = [x.arg for x in _parameters(function) if x.arg not in {"self", "cls"}]
        passed = zip(names, call.args, strict=False)
        given = {name: self.text(x) for name, x in passed if name not in _ALWAYS_FIELDS}
        scope = _Scope(module, function, tuple(given.items()))
        returned = [
            scope.text(x.value)
            for x in sorted(ast.walk(function), key=lambda x: getattr(x, "lineno", 0))
            if isinstance(x, ast.Return) and x.value is not None
        ]
        if not returned or any(map(is_bare, returned)):
            return (Field(_field(call)),)
        return choice(*returned)


# Of more alternatives than these, a field says as much.
_MOST_OPTIONS = 4


def _gives_text(function: _Function) -> bool:
    return isinstance(function.returns, ast.Name) and function.returns.id == "str"


def _parameters(function: _Function) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _default(function: _Function, name: str) -> ast.expr | None:
    positional = [*function.args.posonlyargs, *function.args.args]
    pairs = [
        *zip(reversed(positional), reversed(function.args.defaults), strict=False),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    return next((value for argument, value in pairs if argument.arg == name), None)


def _assigned(node: ast.AST, name: str) -> list[ast.expr]:
    """The values that are assigned to a name."""
    nodes = node.body if isinstance(node, ast.Module) else ast.walk(node)
    found: list[ast.expr] = []
    for x in nodes:
        match x:
            case ast.Assign(targets=[ast.Name(target)], value=value) if target == name:
                found.append(value)
            case ast.Assign(targets=[ast.Tuple(targets)], value=ast.Tuple(values)):
                pairs = zip(targets, values, strict=True)
                found += [v for t, v in pairs if isinstance(t, ast.Name) and t.id == name]
            case ast.AnnAssign(target=ast.Name(target), value=ast.expr() as value) if (
                target == name
            ):
                found.append(value)
            case _:
                pass
    return found


# The names of fields ----------------------------------------------------------------------------

# What callers always fill in, and functions whose text is an answer and no part of the message.
_ALWAYS_FIELDS = {"call", "name", "method", "path", "pattern", "selection"}
_OPAQUE = {"reason", "columns", "some_of", "show", "describe_leaf", "describe_array", "_shown"}

# Names in the source, or ends of expressions, that say little to users.
_FIELDS = {
    "_call": "call",
    "_name": "call",
    "_verb": "transform",
    "_LIKELIHOODS": "likelihoods",
    "__name__": "error's class",
    "__wrapped__": "function",
    "NAMES": "mode",
    "as_matrix": "matrix",
    "close": "names",
    "column_labels": "names",
    "dtype": "what came",
    "eqns": "operation",
    "exact": "number",
    "given_name": "call",
    "held": "reason",
    "known": "names",
    "kwargs": "arguments",
    "leaf": "what came",
    "lines": "details",
    "m": "mode",
    "mixing": "what mixes them",
    "other": "what came",
    "out": "what came",
    "parts": "number",
    "push": "what JAX says",
    "received": "what came",
    "specs": "leaves",
    "step": "path",
    "treedef": "structure",
    "value": "what came",
    "whole": "path",
    "why": "what JAX says",
    "why_held": "reason",
    "wrong": "what differs",
}


def _field(node: ast.expr) -> str:  # noqa: PLR0911  # as above
    """What a field is called: after the variable that it shows."""
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            found = _FIELDS.get(name, name)
        case ast.Call(args=[*_, last]) if not isinstance(last, ast.Lambda):
            return _field(last)
        case ast.Call(func=func):
            return _field(func)
        case ast.Subscript(value=value) | ast.Starred(value=value):
            return _field(value)
        case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt):
            return f"{_field(elt)}s".replace("ss", "s")
        case ast.JoinedStr(values):
            inner = [x.value for x in values if isinstance(x, ast.FormattedValue)]
            return _field(inner[0]) if inner else "text"
        case ast.List(elts=[first, *_]):
            return _field(first)
        case ast.IfExp(body=body):
            return _field(body)
        case ast.BoolOp(values=[first, *_]):
            return _field(first)
        case _:
            found = "value"
    return found.strip("_").replace("_", " ")
