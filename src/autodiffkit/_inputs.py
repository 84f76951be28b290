"""The structure of a call: arguments by name, their leaves by path, and nothing of their values."""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterable
from typing import Any, Literal

from autodiffkit._errors import NotDifferentiatedError, StructureError
from autodiffkit._leaves import LeafSpec
from autodiffkit._paths import all_parts, missing, spellings
from autodiffkit._records import Record
from autodiffkit._trees import Part, Tree, arguments_tree

TO_HAVE_A_BLOCK = (
    "Name it in wrt=, and pass it as a floating-point array or number: then there is a block."
)


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument: its structure, and where it stood among the positional ones.

    `position` is `None` for what was passed by keyword or left out. The entries of a
    variadic argument (`*args`) occupy the positions from there on. `held` is the reason
    why the argument as a whole was not even looked into.
    """

    name: str
    tree: Tree
    position: int | None = None
    role: Literal["plain", "variadic", "bound"] = "plain"
    held: str | None = None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The static part of a bound call: its arguments in signature order."""

    arguments: tuple[Argument, ...]

    @functools.cached_property
    def tree(self) -> Tree:
        """The record of the differentiated arguments."""
        return arguments_tree([(argument.name, argument.tree) for argument in self.arguments])

    @property
    def specs(self) -> tuple[LeafSpec, ...]:
        """The differentiated leaves."""
        return self.tree.specs

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that have something differentiated."""
        return tuple(argument.name for argument in self.arguments if argument.tree.selected)

    @property
    def paths(self) -> list[str]:
        """Everything that has a name: the arguments, then their parts."""
        leaves = (leaf.path for argument in self.arguments for leaf in argument.tree.leaves)
        return [*(argument.name for argument in self.arguments), *all_parts(leaves)]

    def locate(self, call: str, path: Any, outputs: Iterable[LeafSpec] = ()) -> Part:
        """The part of the arguments under `path`.

        Args:
            call: The derivative, for messages.
            path: The path, which starts with the name of an argument.
            outputs: The leaves of the output, where the derivative has a part for each.

        Returns:
            The part, with indices among all differentiated leaves.

        Raises:
            NotDifferentiatedError: If nothing there was differentiated; it says why.
            StructureError: If the path is not a string.
        """
        if isinstance(path, tuple):
            raise StructureError(
                f"{call}: blocks are reached by one name, as in J['x'], and not by several at once;"
                f" got {path!r}. Select several with wrt={path!r} in the call of the transform."
            )
        if not isinstance(path, str):
            raise StructureError(
                f"{call}: blocks are reached by names, as in J['x'], not by {path!r}; "
                ".to_jax() gives them by position."
            )
        for spelling in spellings(path):
            part = self._part(call, spelling)
            if part is not None:
                return part
        if path in all_parts(leaf.path for leaf in outputs):
            raise NotDifferentiatedError(
                f"{call}: {path!r} is an output, and no argument. Take .of({path!r}) for the "
                "derivative of that output, and the names of arguments for its blocks."
            )
        raise missing(call, "argument", path, self.paths)

    def _part(self, call: str, path: str) -> Part | None:
        start = 0
        for argument in self.arguments:
            if path == argument.name or path.startswith(argument.name + "."):
                if argument.held is not None:
                    raise NotDifferentiatedError(
                        f"{call}: no block for {path!r}: {argument.held}.", remedy=TO_HAVE_A_BLOCK
                    )
                rest = None if path == argument.name else path[len(argument.name) + 1 :]
                part = argument.tree.at(rest, call)
                if part is not None:
                    if not part.indices:
                        raise NotDifferentiatedError(
                            f"{call}: no block for {path!r}: {part.tree.why_held()}.",
                            remedy=TO_HAVE_A_BLOCK,
                        )
                    return part.shifted(start)
            start += len(argument.tree.selected)
        return None

    def positional(self, call: str, argnums: Any) -> list[Part]:
        """The parts at these positions of the call; `None` means all of them.

        Args:
            call: The derivative, for messages.
            argnums: One position or several, counted from the end if negative.

        Returns:
            The parts, with indices among all differentiated leaves.

        Raises:
            StructureError: If there is no such position.
        """
        parts: list[Part] = []
        start = 0
        for argument in self.arguments:
            if argument.position is not None:
                paths: list[str | None] = [None]
                if argument.role == "variadic":
                    paths = [str(i) for i in range(len(argument.tree.treedef.children()))]
                found = (argument.tree.at(path, call) for path in paths)
                parts += [part.shifted(start) for part in found if part is not None]
            start += len(argument.tree.selected)
        if argnums is None:
            return parts
        try:
            numbers = [argnums] if is_index(argnums) else list(map(operator.index, argnums))
            return [parts[number] for number in numbers]
        except (IndexError, TypeError):
            raise StructureError(
                f"{call}.to_jax: argnums={argnums!r} is not among the {len(parts)} positional "
                f"argument{'' if len(parts) == 1 else 's'} of the call (arguments passed by "
                "keyword have no position). Reach blocks by name, as in J['x']."
            ) from None


def inputs_of(tree: Tree) -> Inputs:
    """A space as arguments: those of a record, or one that is called `output`."""
    node = tree.treedef.node_data()
    if node is None or node[0] is not Record:
        named = dataclasses.replace(
            tree,
            leaves=tuple(
                dataclasses.replace(leaf, path=("output", *leaf.path)) for leaf in tree.leaves
            ),
            depth=1,
        )
        return Inputs((Argument("output", named),))
    leaves = iter(tree.leaves)
    return Inputs(
        tuple(
            Argument(name, Tree(child, tuple(itertools.islice(leaves, child.num_leaves)), 1))
            for name, child in zip(node[1], tree.treedef.children(), strict=True)
        )
    )


def is_index(argnums: Any) -> bool:
    """Whether `argnums` is one position, of any integer type."""
    try:
        operator.index(argnums)
    except TypeError:  # an array of several positions, say
        return False
    return True
