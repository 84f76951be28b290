"""What places arrays on devices, and collective operations over one of them or more."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from operations.registry import family, numbers

DEVICES = len(jax.devices())
MESH = jax.make_mesh((DEVICES,), ("i",), axis_types=(AxisType.Auto,))
EXPLICIT = jax.make_mesh((DEVICES,), ("i",), axis_types=(AxisType.Explicit,))
ROWS = 2 * DEVICES

operation = family("Devices and collective operations")


BY_ROWS = P("i")


def sharded(body, *, ins=BY_ROWS, out=BY_ROWS, vma=True):
    """A function of what each device has."""
    return jax.shard_map(body, mesh=MESH, in_specs=ins, out_specs=out, check_vma=vma)


def resharded(x):
    """There and back: what is sharded at the end is the caller's to deal with."""
    there = jax.sharding.reshard(jnp.cos(x), NamedSharding(EXPLICIT, P("i")))
    return jax.sharding.reshard(jnp.sin(there), NamedSharding(EXPLICIT, P()))


def both(name, body, *operands, **options):
    """With and without the check of what varies over an axis."""
    specs = {key: options.pop(key) for key in ("ins", "out") if key in options}
    for vma in (True, False):
        operation(f"shard_map, {name}{'' if vma else ', check_vma=False'}",
                  sharded(body, vma=vma, **specs), *operands, **options)  # fmt: skip


both("entry by entry", jnp.sin, (ROWS, 2))
both("lax.psum", lambda x: jnp.sin(x) * lax.psum(jnp.sum(x * x), "i"), (ROWS, 2))
both("lax.psum, replicated result", lambda x: lax.psum(jnp.sum(jnp.sin(x)), "i"), (ROWS, 2),
     out=P())  # fmt: skip
both("lax.pmean", lambda x: x * lax.pmean(jnp.sin(x), "i"), (ROWS, 2))
both("a replicated operand", lambda x, w: jnp.tanh(x @ w), (ROWS, 3), (3, 2), ins=(P("i"), P()))
both("a captured constant", lambda x: jnp.sin(x @ numbers((2, 2), x.dtype)), (ROWS, 2))
both("in a scan", lambda x: lax.scan(
    lambda c, _: (jnp.sin(c) * lax.psum(jnp.sum(c), "i"), None), x, length=2)[0],
    (ROWS, 2))  # fmt: skip
both("lax.all_gather", lambda x: jnp.sin(lax.all_gather(x, "i")).sum(0) * x, (ROWS, 2))
both(
    "lax.all_to_all",
    lambda x: jnp.sin(lax.all_to_all(x, "i", 1, 1, tiled=True)) * x,
    (ROWS, 2 * DEVICES),
)
both("lax.ppermute", lambda x: jnp.sin(lax.ppermute(
    x, "i", [(i, (i + 1) % DEVICES) for i in range(DEVICES)])) * x, (ROWS, 2))  # fmt: skip
both(
    "lax.psum_scatter",
    lambda x: jnp.sin(lax.psum_scatter(x, "i", tiled=True)),
    (2 * DEVICES * DEVICES, 2),
)
both(
    "in jit and vmap", lambda x: jax.jit(jax.vmap(lambda r: jnp.sin(r) * jnp.sum(r)))(x), (ROWS, 2)
)
both("lax.pshuffle", lambda x: jnp.sin(lax.pshuffle(x, "i", list(range(DEVICES)))), (ROWS, 2))
both("lax.pswapaxes", lambda x: jnp.sin(lax.pswapaxes(x, "i", 1)), (ROWS, DEVICES))
both("lax.pmax", lambda x: x - lax.pmax(lax.stop_gradient(x), "i"), (ROWS, 2), exact=False)
operation("shard_map, lax.pcast", sharded(
    lambda x, w: jnp.sin(x @ lax.pcast(w, "i", to="varying")), ins=(P("i"), P())),
    (ROWS, 3), (3, 2))  # fmt: skip
operation("shard_map, jax.lax.all_gather, invariant", sharded(
    lambda x: jnp.sin(lax.all_gather(x, "i", tiled=True, to="invarying"))
    if DEVICES else x, out=P()), (ROWS, 2))  # fmt: skip

operation("jax.vmap, lax.psum over a named axis", lambda x: jax.vmap(
    lambda r: jnp.sin(r) * lax.psum(r, "rows"), axis_name="rows")(x), (2, 3))  # fmt: skip
operation("jax.vmap, lax.all_gather over a named axis", lambda x: jax.vmap(
    lambda r: jnp.sin(lax.all_gather(r, "rows")) * r, axis_name="rows")(x), (2, 3))  # fmt: skip
operation("lax.with_sharding_constraint", lambda x: jnp.sin(
    lax.with_sharding_constraint(jnp.cos(x), NamedSharding(MESH, P("i")))), (ROWS, 2))  # fmt: skip
operation("with_layout_constraint", lambda x: jnp.sin(
    with_layout_constraint(jnp.cos(x), Layout(major_to_minor=(1, 0)))), (2, 3))  # fmt: skip
operation("jax.reshard", resharded, (ROWS, 2))
