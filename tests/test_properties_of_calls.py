"""Names, trees, selections and options of random programs.

By default there are few programs; `nox -s fuzz` runs thousands.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import autodiffkit as adk
from fuzzing import fuzz
from oracles import close, flat_of, matrix_of
from strategies import Program, identifiers, modes, programs, selections


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@fuzz(0.1, program=programs(), data=st.data())
def test_names_trees_and_matrices_are_of_one_mind(program, data):
    layout = data.draw(st.sampled_from(["dense", "compact"]))
    flat, other = flat_of(program), flat_of(program, shift=100)
    transform = adk.jacobian(program.function, layout=layout)
    try:
        J = transform(*flat.args, **flat.kwargs)
    except adk.SelectionError:
        assert layout == "compact"  # and no axis is shared
        return
    A, rows, columns = J.as_matrix(), J.row_labels, J.column_labels
    assert A.shape == (rows[-1][1].stop, columns[-1][1].stop)
    for path, part in rows:
        np.testing.assert_array_equal(J.of(path).as_matrix(), A[part])
    for path, part in columns:
        for block, again, (_, row) in zip(
            *map(jax.tree.leaves, (J.wrt(path), J[path])), rows, strict=True
        ):
            np.testing.assert_array_equal(block, again)
            if layout == "dense":
                entries = A[row, part]
                np.testing.assert_array_equal(np.reshape(block, entries.shape), entries)
    for name in {path.partition(".")[0] for path, _ in columns}:
        # What Python itself looks for, and names of methods, are reached by path alone.
        if not hasattr(type(J), name) and not name.startswith("__"):
            assert jax.tree.structure(getattr(J, name)) == jax.tree.structure(J.wrt(name))
    np.testing.assert_array_equal(J.from_matrix(A).as_matrix(), A)

    if layout == "dense":
        records = jax.tree.leaves(J.tree, is_leaf=lambda x: isinstance(x, adk.Record))
        outs = flat.outputs(*flat.point)
        theirs = matrix_of(map(jax.tree.leaves, records), outs, flat.point)
        np.testing.assert_array_equal(theirs, A)
        if not flat.kwargs:
            assert sum(x.size for x in jax.tree.leaves(J.to_jax())) == A.size

    # Other values, the same structure: a result can be the carry of a loop.
    second = transform(*other.args, **other.kwargs)
    assert jax.tree.structure(second) == jax.tree.structure(J)
    for x, y in zip(*map(jax.tree.leaves, (J, second)), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@fuzz(0.05, data=st.data(), names=st.lists(identifiers(), min_size=3, max_size=3, unique=True))
def test_names_do_not_matter(data, names):
    fixed = ["argument_a", "argument_b", "argument_c"][: data.draw(st.integers(1, 3))]
    program = data.draw(programs(names=st.just(fixed), odd=False))

    def rename(text: str) -> str:
        for old, new in zip(fixed, names, strict=False):
            text = text.replace(old, new)
        return text

    texts = rename(program.source), rename(program.call)
    renamed = Program(*texts, program.rules, program.dtypes)
    first, second = flat_of(program), flat_of(renamed)
    J = adk.jacobian(program.function)(*first.args, **first.kwargs)
    K = adk.jacobian(renamed.function)(*second.args, **second.kwargs)
    close(K.as_matrix(), J.as_matrix(), program)
    paths = [path for path, _ in J.column_labels]
    assert [rename(path) for path in paths] == [path for path, _ in K.column_labels]
    for path in paths:
        ours, theirs = J.wrt(path), K.wrt(rename(path))
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
            close(x, y, program, J.as_matrix())


@fuzz(0.1, program=programs(), data=st.data())
def test_a_selection_is_a_part_of_the_whole(program, data):
    flat = flat_of(program)
    whole = adk.jacobian(program.function)(*flat.args, **flat.kwargs)
    columns, rows = dict(whole.column_labels), dict(whole.row_labels)
    wrt, inputs = data.draw(selections([*columns]))
    of = data.draw(st.sampled_from([None, *(path for path in rows if path)]))
    options = {"wrt": wrt, "of": of, "mode": data.draw(modes(program.rules))}
    part = adk.jacobian(program.function, **options)(*flat.args, **flat.kwargs)
    assert [path for path, _ in part.column_labels] == inputs
    A = np.asarray(whole.as_matrix())
    expected = A[:, np.r_[tuple(columns[path] for path in inputs)]]
    close(part.as_matrix(), expected if of is None else expected[rows[of]], program, A)
    for path in {*columns} - {*inputs}:
        with pytest.raises(adk.NotDifferentiatedError):
            part.wrt(path)


# Options -----------------------------------------------------------------------------------

_JUNK = st.one_of(
    st.integers(max_value=0),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=2),
    st.sampled_from([(), [], {}, {"x": 1}, {1}, True, ..., 1j, ("a", 1), [("x", "y", "z")]]),
    st.builds(object),
    st.builds(lambda: np.zeros(2)),
    st.builds(lambda: jnp.ones(2)),
)


@fuzz(
    0.4,
    "options",
    verb=st.sampled_from([adk.jacobian, adk.hessian, adk.grad, adk.linearize, adk.hvp]),
    option=st.sampled_from(["mode", "layout", "chunk_size", "memory_limit", "wrt", "of"]),
    junk=_JUNK,
)
def test_an_option_that_makes_no_sense_is_an_error_of_the_package(verb, option, junk):
    def energy(x: Any, *, params: Any) -> Any:
        return jnp.sum(jnp.sin(x)) * params["w"]

    def refusal() -> adk.AutodiffError | None:
        try:
            verb(energy, **{option: junk})(jnp.ones(2), params={"w": 2.0})
        except adk.AutodiffError as error:
            return error
        return None

    error = refusal()
    if error is None:  # a number of bytes, or a text that is a path by chance
        assert option in {"memory_limit", "wrt", "of"}
        assert isinstance(junk, str | float)
    else:
        assert "energy" in str(error)
