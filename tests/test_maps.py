"""The algebra of maps with named axes, against dense arrays."""

import dataclasses
import math

import numpy as np
import pytest

from autodiffkit._algebra import added, aligned, compose, regrouped, unshared
from autodiffkit._arrays import Arrays
from autodiffkit._maps import ONE, Data, Part, flat, identity
from named_axes import (
    arrays_of,
    assert_names,
    assert_same,
    axes_written,
    canonical,
    computed,
    dense_of,
    filled,
    generator,
    map_of,
    random_data,
    shape_of,
    structured,
)

F32, F64, C64, BF16 = "float32", "float64", "complex64", "bfloat16"
ARRAYS = Arrays()


@pytest.fixture
def rng(getkey):
    return generator(getkey())


# Identities, and what is known -------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1, 3)])
def test_an_identity_has_no_data(shape):
    given = identity(shape, F32)
    size = math.prod(shape)
    assert given.data is ONE
    assert given.shared == tuple(flat(given.outs))
    assert given.directions == 1
    np.testing.assert_array_equal(dense_of(given), np.eye(size).reshape(shape + shape))


def test_an_identity_may_be_a_multiple():
    given = identity((2, 3), C64, Data((Part(np.asarray(1j, C64), ()),)))
    np.testing.assert_array_equal(dense_of(given).reshape(6, 6), 1j * np.eye(6))


KNOWN = {  # text: directions, from the other end, and whether it is dense
    "->:": (1, 1, False),
    "1->1:": (1, 1, False),
    "ab->ab:": (1, 1, False),
    "ab->ab:ab": (1, 1, False),
    "ab->ac:abc": (3, 4, False),
    "ab->ac:bc": (3, 4, False),
    "ab->cd:abcd": (6, 20, True),
    "ab->cd:ac": (2, 4, False),
    "ab->:ab": (6, 1, True),
    "->ab:ab": (1, 6, True),
    "1b->a1:ab": (3, 2, True),
    "f->(ab):": (1, 1, False),
    "(ab)->(ac):abc": (3, 4, False),
}


@pytest.mark.parametrize("text", KNOWN)
def test_directions_are_those_that_only_one_side_has(text, rng):
    given = map_of(text, rng)
    assert (given.directions, given.transposed.directions, given.is_dense) == KNOWN[text]
    assert given.transposed.shared == tuple(x for x in flat(given.ins) if x in given.shared)


@pytest.mark.parametrize("text", ["ab->cd:abcd", "a->b:ab"])
def test_a_product_of_factors_is_not_dense(text, rng):
    given = map_of(text, rng, turn=1)
    assert len(given.data.parts) == 2
    assert not given.is_dense


# Products ------------------------------------------------------------------------------

# The map that moves, the constant one that is applied to what comes out, and their product.
PRODUCTS = [
    ("->:", "->:", "->:"),
    ("1->1:", "1->1:", "1->1:"),
    ("a->a:", "a->a:", "a->a:"),
    ("a->a:a", "a->a:", "a->a:a"),
    ("a->a:", "a->a:a", "a->a:a"),
    ("ab->ab:a", "ab->ab:b", "ab->ab:ab"),
    # Contracted, where the moving map is an identity, a diagonal, or dense.
    ("a->a:", "a->b:ab", "a->b:ab"),
    ("a->a:a", "a->b:ab", "a->b:ab"),
    ("b->a:ab", "a->c:ac", "b->c:bc"),
    ("b->a:ab", "a->a:a", "b->a:ab"),
    ("ab->ac:bc", "ac->ad:cd", "ab->ad:bd"),
    ("ab->ac:abc", "ac->ad:acd", "ab->ad:abd"),
    # Sums, of what is constant as well.
    ("ab->ab:", "ab->b:", "ab->b:"),
    ("ab->ab:a", "ab->b:", "ab->b:a"),
    ("ab->ab:ab", "ab->b:a", "ab->b:ab"),
    ("ab->ab:ab", "ab->:", "ab->:ab"),
    ("b->a:", "a->c:", "b->c:"),
    ("b->a:b", "a->c:c", "b->c:bc"),
    ("b->a:a", "a->c:", "b->c:"),
    ("b->a:", "a->c:a", "b->c:"),
    ("b->a:", "a->c:ac", "b->c:c"),
    ("b->a:ab", "a->c:c", "b->c:bc"),
    ("b->ab:ab", "ab->a:", "b->a:ab"),
    ("b->ab:", "ab->b:a", "b->b:"),
    ("->ab:ab", "ab->:ab", "->:"),
    ("b->ad:abd", "ad->c:ac", "b->c:bc"),
    # Axes of size 1, new ones, and some that consist of several.
    ("a1->1a:a", "1a->a11:", "a1->a11:a"),
    ("1a->a:", "a->1:a", "1a->1:a"),
    ("a->a:", "a->ba:b", "a->ba:b"),
    ("f->f:", "(ab)->a:", "(ab)->a:"),
    ("f->f:f", "(ab)->a:b", "(ab)->a:ab"),
    ("(ab)->(ab):a", "f->c:fc", "(ab)->c:abc"),
    ("c->(ab):bc", "f->f:", "c->(ab):bc"),
    ("h->h:h", "(aeb)->b(ea):a", "(aeb)->b(ea):aeb"),
    ("(ab)->(ab):a", "(ba)->(ba):b", "(ab)->(cd):abcd"),
    ("(ab)d->(ab)d:d", "(ba)d->d(ba):", "(ab)d->d(xy):abdxy"),
]


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("moving", "constant", "expected"), PRODUCTS)
def test_products_are_those_of_dense_maps_and_keep_axes(moving, constant, expected, turn, rng):
    inner, outer = map_of(moving, rng, turn=turn), map_of(constant, rng)
    first, last = computed(
        lambda: (
            compose(ARRAYS, inner, outer, F32, constant_first=True),
            compose(ARRAYS, inner.transposed, outer.transposed, F32, constant_first=False),
        )
    )
    wanted = np.tensordot(dense_of(outer), dense_of(inner), len(outer.ins))
    for found in (first, last.transposed):
        assert_names(found)
        assert_same(dense_of(found), wanted)
        assert axes_written(found) == canonical(expected)


# What is divided, or selected from, and the axes of what it is divided by, or of the mask.
CHOICES = [
    ("a->a:", "a->a:a"),
    ("a->a:a", "a->a:a"),
    ("ab->ab:ab", "ab->ab:b"),
    ("ab->ab:a", "ab->ab:b"),
    ("ab->ab:", "ab->ab:"),
    ("c->ab:abc", "ab->ab:a"),
    ("c->b:bc", "b->ab:ab"),
    ("c->b:bc", "b->ab:a"),
    ("c->ab:abc", "ab->b:ab"),
    ("c->ab:abc", "ab->b:a"),
    ("c->ab:bc", "ab->b:a"),
    ("c->ab:ab", "ab->b:b"),
    ("ab->ab:ab", "ab->b:ab"),
    ("ab->ab:", "ab->:ab"),
    ("c->a:", "a->:a"),
]


@pytest.mark.parametrize("kind", ["divide", "select"])
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("moving", "constant"), CHOICES)
def test_quotients_and_choices_are_those_of_dense_maps(moving, constant, turn, kind, rng):
    inner, outer = map_of(moving, rng, turn=turn), map_of(constant, rng)
    arrays = [np.asarray(x) for x in arrays_of(outer)] or [np.asarray(2.0, F32)]
    if kind == "select":
        arrays = [x > 0 for x in arrays]
    parts = tuple(map(Part, arrays, [x.axes for x in outer.data.parts] or [()]))
    outer = dataclasses.replace(outer, data=Data(parts))
    factors = [x.astype(F32) if kind == "select" else 1 / x for x in arrays]
    (found,) = computed(
        lambda: [compose(ARRAYS, inner, outer, F32, constant_first=True, kind=kind)]
    )
    wanted = np.tensordot(dense_of(filled(outer, factors)), dense_of(inner), len(outer.ins))
    assert_names(found)
    assert_same(dense_of(found), wanted)


def test_what_is_infinite_is_not_selected(rng):
    inner, outer = map_of("a->b:ab", rng), map_of("b->b:b", rng)
    inner = filled(inner, [np.full((2, 3), np.inf, F32)])
    outer = filled(outer, [np.asarray([True, False, True])])
    (found,) = computed(
        lambda: [compose(ARRAYS, inner, outer, F32, constant_first=True, kind="select")]
    )
    (array,) = arrays_of(found)
    rows = np.moveaxis(array, found.data.parts[0].axes.index(found.outs[0][0]), 0)
    np.testing.assert_array_equal(np.isinf(rows), [[True] * 2, [False] * 2, [True] * 2])


@pytest.mark.parametrize(("first", "second", "dtype"), [(F32, C64, C64), (BF16, BF16, F32)])
def test_a_product_has_the_dtype_that_is_asked_for(first, second, dtype, rng):
    inner, outer = map_of("a->b:ab", rng, dtype=first), map_of("b->c:bc", rng, dtype=second)
    (found,) = computed(lambda: [compose(ARRAYS, inner, outer, dtype, constant_first=True)])
    assert found.dtype == dtype
    assert [str(x.dtype) for x in arrays_of(found)] == [dtype]
    assert_same(dense_of(found), np.tensordot(dense_of(outer), dense_of(inner), 1))


def test_the_maps_of_a_long_product_are_multiplied_in_a_cheap_order(rng):
    inner, outer = map_of("c->ab:", rng), map_of("ab->d:ad", rng)
    labels = [*flat(inner.outs), *flat(inner.ins)]
    for _ in range(8):
        part = random_data([labels[i] for i in rng.permutation(3)[:2]], 0, F32, rng).parts
        inner = dataclasses.replace(inner, data=Data((*inner.data.parts, *part)))
    (found,) = computed(lambda: [compose(ARRAYS, inner, outer, F32, constant_first=True)])
    assert_same(dense_of(found), np.tensordot(dense_of(outer), dense_of(inner), 2), 1e-4)


# Sums --------------------------------------------------------------------------------------

# Two maps between the same arrays, and their sum.
SUMS = [
    ("->:", "->:", "->:"),
    ("a->a:", "a->a:", "a->a:"),
    ("a->a:", "a->a:a", "a->a:a"),
    ("ab->ab:a", "ab->ab:b", "ab->ab:ab"),
    ("ab->ab:ab", "ab->ab:", "ab->ab:ab"),
    # Of different structure.
    ("ab->ac:abc", "ab->ac:bc", "ab->ac:abc"),
    ("ab->ac:bc", "ab->ec:abce", "ab->ec:abce"),
    ("ae->ae:", "ae->ea:", "ab->cd:abcd"),
    ("ab->ab:", "ab->ag:", "ab->ag:bg"),
    ("a->e:ae", "a->a:", "a->e:ae"),
    ("a->a:", "a->e:e", "a->e:ae"),
    ("b->b:", "b->g:", "b->g:bg"),
    # Constant along axes.
    ("b->a:", "b->a:", "b->a:"),
    ("b->a:b", "b->a:a", "b->a:ab"),
    ("b->a:", "b->a:ab", "b->a:ab"),
    # Axes of size 1, and some that consist of several.
    ("1a->a1:", "1a->a1:a", "1a->a1:a"),
    ("f->f:", "(ab)->(ab):a", "(ab)->(ab):a"),
    ("(ab)->(ab):b", "f->f:f", "(ab)->(ab):ab"),
    ("(ab)->(cd):abcd", "f->(cd):fd", "(ab)->(cd):abcd"),
    ("(ab)->f:abf", "f->f:", "(ab)->(xy):abxy"),
    ("f->f:", "(ab)->f:abf", "(ab)->(xy):abxy"),
    ("f->f:", "f->(ab):fab", "(xy)->(ab):xyab"),
    ("f->f:", "(ab)->(ag):abg", "(ab)->(ag):abg"),
    ("(ab)->(ab):a", "(ba)->(ba):b", "f->x:fx"),
    ("(ab)->(ab):", "(ba)->(ba):", "f->x:fx"),
    ("h->h:", "(bc)->(bc):b", "(bc)->(bc):b"),
]


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("one", "other", "expected"), SUMS)
def test_sums_are_those_of_dense_maps_and_keep_axes(one, other, expected, turn, rng):
    pair = [map_of(one, rng, turn=turn), map_of(other, rng)]
    wanted = sum(map(dense_of, pair))
    (found,) = computed(lambda: [added(ARRAYS, pair)])
    assert_names(found)
    assert_same(dense_of(found), wanted)
    assert axes_written(found) == canonical(expected)


@pytest.mark.parametrize("turn", range(5))
def test_several_maps_are_added(turn, rng):
    maps = [structured((6, 2, 3), (2, 6, 3), turn + i, F32, rng) for i in range(4)]
    (found,) = computed(lambda: [added(ARRAYS, maps)])
    assert_names(found)
    assert_same(dense_of(found), sum(map(dense_of, maps)))


@pytest.mark.parametrize(("one", "other", "expected"), SUMS)
def test_maps_that_are_aligned_have_the_same_labels_and_share_the_same(one, other, expected, rng):
    pair = [map_of(one, rng), map_of(other, rng)]
    axes = [(i, i) for i in range(len(pair[0].outs))]
    found = computed(lambda: aligned(ARRAYS, *pair, axes))
    first, second = found
    assert (first.outs, first.ins) == (second.outs, second.ins)
    for given, before in zip(found, pair, strict=True):
        assert_names(given)
        assert_same(dense_of(given), dense_of(before))


def test_maps_may_be_aligned_along_some_axes_of_their_outputs(rng):
    pair = [map_of("ab->bda:abd", rng), map_of("ab->agb:abg", rng)]
    first, second = computed(lambda: aligned(ARRAYS, *pair, [(2, 0)]))
    assert first.ins == second.ins
    assert first.outs[2] == second.outs[0] == first.ins[0]
    assert set(flat(first.outs)).isdisjoint(flat(second.outs[1:]))
    for given, before in zip((first, second), pair, strict=True):
        assert_same(dense_of(given), dense_of(before))


# Labels that are divided, joined, or no longer shared ------------------------------------------

# A map, its new shape, and its new axes, where its output is reshaped.
RESHAPED = [
    ("->:", (1, 1), "->11:"),
    ("a->a:", (1, 2, 1), "a->1a1:"),
    ("f->f:", (2, 3), "(ab)->ab:"),
    ("f->f:f", (3, 2), "(ba)->ba:ab"),
    ("c->f:cf", (2, 3), "c->ab:abc"),
    ("ab->ab:b", (6,), "ab->(ab):b"),
    ("(ab)->(ab):", (2, 1, 3), "(ab)->a1b:"),
    ("afd->afd:d", (4, 15), "a(ec)d->(ae)(cd):d"),
    ("h->h:h", (2, 3, 2), "(aeb)->aeb:aeb"),
    ("cb->cb:", (6, 2), "cb->xy:cbxy"),
    ("dab->dab:a", (5, 3, 2), "dab->dxy:abxy"),
    ("abd->abd:", (3, 2, 5), "abd->xyd:abxy"),
    ("cb->cb:c", (2, 6), "(ac)b->a(cb):ac"),
    ("d->cb:c", (6, 2), "d->xy:xy"),
    ("d->cb:", (6, 2), "d->xy:"),
]


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("text", "shape", "expected"), RESHAPED)
def test_a_reshaped_map_has_the_same_entries_and_keeps_axes(text, shape, expected, turn, rng):
    given = map_of(text, rng, turn=turn)
    outs, ins = computed(
        lambda: (
            regrouped(ARRAYS, given, "outs", shape),
            regrouped(ARRAYS, given.transposed, "ins", shape),
        )
    )
    wanted = dense_of(given).reshape(*shape, *shape_of(given.ins))
    for found in (outs, ins.transposed):
        assert_names(found)
        assert shape_of(found.outs) == shape
        assert_same(dense_of(found), wanted)
        assert axes_written(found) == canonical(expected)


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("text", ["ab->ab:", "ab->ba:b", "ab->ab:ab", "abc->ad(bc):abd", "1a->a1:"])
def test_labels_that_are_no_longer_shared_leave_zeros(text, turn, rng):
    given = map_of(text, rng, turn=turn)
    some, none, whole = computed(
        lambda: (
            unshared(ARRAYS, given, given.shared[:1]),
            unshared(ARRAYS, given, []),
            unshared(ARRAYS, given, given.shared),
        )
    )
    assert some.shared == given.shared[1:]
    assert none.ins == given.ins
    assert whole.shared == ()
    for found in (some, whole):
        assert_names(found)
        assert found.outs == given.outs
        assert_same(dense_of(found), dense_of(given))
