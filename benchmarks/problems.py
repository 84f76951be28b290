"""The problems, group by group, and what is promised for each."""

import formulas
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import COMPILATION, CUT, STRUCTURE, ByHand, Draw, Problem

# Where the chosen plan is a plain mode's, it may cost little on top of it.
_NO_LOSS = 0.97
_LITTLE_LOSS = 0.95  # in calls so short that a few kernels more or less are noise


def problems() -> list[Problem]:
    """Functions of research practice, in shapes that plain modes are good and bad at."""
    draw = Draw(0)
    return [
        *_where_a_cut_helps(draw),
        *_where_structure_helps(draw),
        *_where_nothing_may_be_lost(draw),
        *_compilation(draw),
    ]


def _where_a_cut_helps(draw: Draw) -> list[Problem]:
    return [
        Problem(
            "autoencoder 1000-500-8-500-1000",
            formulas.network(draw, 1000, 500, 8, 500, 1000),
            (draw.normal(1000),),
            target=10.0,
            group=CUT,
        ),
        Problem(
            "x[2000], t to vector(t), scalar(x, t)",
            formulas.trajectory_and_energy(draw),
            (draw.normal(2000), jnp.asarray(0.7, jnp.float32)),
            target=20.0,
            group=CUT,
        ),
        Problem(
            "1000 latents pooled to 10, 50 gains",
            formulas.decoded_rows(draw),
            (draw.normal(1000), draw.normal(50)),
            target=3.0,
            group=CUT,
        ),
        Problem(
            "Hessian of a GLM, 20 rows by 2000",
            formulas.logistic_loss(20 * draw.normal(20, 2000), draw.labels(20)),
            (draw.normal(2000),),
            order=2,
            target=2.0,
            group=CUT,
        ),
    ]


def _where_structure_helps(draw: Draw) -> list[Problem]:
    layer, layer_by_hand = formulas.dense_layer(draw, 1000)
    batched, row_by_row = formulas.batched_network(draw, 32, 64, 16)
    batch = draw.normal(64, 32)
    X = 5 * draw.normal(2000, 300)
    rows = [
        Problem(
            "tanh(W @ x + b), 1000 by 1000, by x and b",
            layer,
            (draw.normal(1000), draw.normal(1000)),
            target=20.0,
            by_hand=ByHand("s[:, None] * W, diag(s)", layer_by_hand, at_most=1.5),
        ),
        Problem("batch of 64, 32-64-16", batched, (batch,), target=5.0),
        Problem(
            "batch of 64, 32-64-16, compact",
            batched,
            (batch,),
            by_hand=ByHand("vmap(jacrev)", row_by_row, at_most=1.3),
            layout="compact",
        ),
        Problem(
            "softplus residuals, 5000 by 50",
            formulas.softplus_residuals(draw, 5000, 50),
            (draw.normal(50),),
            target=2.0,
        ),
        Problem(
            "MLP 128-128-128-128",
            formulas.network(draw, 128, 128, 128, 128),
            (draw.normal(128),),
            target=1.2,
        ),
        Problem(
            "Hessian of logistic regression, 300",
            formulas.logistic_loss(X, draw.labels(2000)),
            (draw.normal(300),),
            order=2,
            target=1.7,
            by_hand=ByHand("(X.T * s) @ X", formulas.logistic_hessian(X), at_most=1.2),
        ),
        Problem(
            "Hessian of an MLP, 420",
            formulas.mlp_loss(draw),
            ({"W": draw.normal(35, 10), "b": draw.normal(35), "v": draw.normal(35)},),
            order=2,
            target=2.0,
        ),
    ]
    return [problem._replace(group=STRUCTURE) for problem in rows]


def _where_nothing_may_be_lost(draw: Draw) -> list[Problem]:
    no_loss = [
        ("elementwise, 3000", lambda x: jnp.sin(x) * jnp.exp(-x), draw.normal(3000)),
        ("two convolutions, 16 by 16", formulas.convolution(draw), draw.normal(16, 16)),
        ("residual network, 6 of 128", formulas.residual_network(draw, 6, 128), draw.normal(128)),
        (
            "ODE rollout by scan, 1000 steps",
            formulas.rollout,
            jnp.asarray([1.0, 0.0], jnp.float32),
        ),
        (
            "recurrent network by scan, 100 of 32",
            formulas.recurrent_network(draw, 100, 32),
            draw.normal(32),
        ),
    ]
    little_loss = [
        ("square layer, 200 by 200", formulas.layer(draw, 200, 200), draw.normal(200)),
        ("tall regression, 2000 by 20", formulas.layer(draw, 2000, 20), draw.normal(20)),
        ("wide regression, 20 by 2000", formulas.layer(draw, 20, 2000), draw.normal(2000)),
        ("scalar by scalar, 5", formulas.coupled_by_index, draw.normal(5)),
        ("scalar by scalar, 20", formulas.coupled_by_index, draw.normal(20)),
        ("scalar by scalar, 100", formulas.coupled_by_index, draw.normal(100)),
        ("extended Rosenbrock, 20", formulas.rosenbrock_residuals, draw.normal(20)),
        ("Broyden tridiagonal, 50", formulas.broyden_residuals, draw.normal(50)),
    ]
    hessian = Problem(
        "Hessian of logistic regression, 30",
        formulas.logistic_loss(5 * draw.normal(500, 30), draw.labels(500)),
        (draw.normal(30),),
        order=2,
        target=_LITTLE_LOSS,
    )
    return [
        *(Problem(name, f, (x,), target=_NO_LOSS) for name, f, x in no_loss),
        *(Problem(name, f, (x,), target=_LITTLE_LOSS) for name, f, x in little_loss),
        hessian,
    ]


def _compilation(draw: Draw) -> list[Problem]:
    shapes = [(2, 3) if i % 2 else (4,) for i in range(40)]
    state = {f"part{i}": draw.normal(*shape) for i, shape in enumerate(shapes)}
    mixing = draw.normal(200, 200)

    def mixed(state: dict[str, Array]) -> dict[str, Array]:
        """Every part of the new state depends on every part of the old one."""
        flat = jnp.tanh(mixing @ jnp.concatenate([part.ravel() for part in state.values()]))
        ends = np.cumsum([part.size for part in state.values()])
        pieces = jnp.split(flat, ends[:-1])
        return {
            name: piece.reshape(part.shape)
            for (name, part), piece in zip(state.items(), pieces, strict=True)
        }

    return [Problem("40 leaves to 40 leaves", mixed, (state,), target=3.0, group=COMPILATION)]


# Planning ---------------------------------------------------------------------


def long_program(draw: Draw, steps: int = 31) -> Problem:
    """A recurrent network written out, whose linear program has about 500 equations."""
    W, U = draw.normal(40, 40), draw.normal(40, 10)

    def unrolled(state: Array, drive: Array) -> tuple[Array, Array]:
        readings: list[Array] = []
        for _ in range(steps):
            gate = jax.lax.logistic(U @ drive)
            state = gate * jnp.tanh(W @ state) + (1 - gate) * state
            readings.append(state[0])
        return state, jnp.stack(readings)

    return Problem("a recurrent network written out", unrolled, (draw.normal(40), draw.normal(10)))
