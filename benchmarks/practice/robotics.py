"""Cameras and arms."""

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "vision and robotics"


def _turned(turn: Array, x: Array) -> Array:
    """A point after a rotation vector (Rodrigues, 1840)."""
    square = turn @ turn + 1e-8
    angle = jnp.sqrt(square)
    axis = turn / angle
    along = axis * (axis @ x) * (1 - jnp.cos(angle))
    return x * jnp.cos(angle) + jnp.cross(axis, x) * jnp.sin(angle) + along


def problems() -> list[Problem]:
    """Residuals and positions with their arguments."""
    draw = Draw(16)
    count = 60
    seen = draw.normal(count, 2)
    camera_of, point_of = jnp.arange(count) % 6, jnp.arange(count) % 25

    def bundle(cameras: dict[str, Array], points: Array) -> Array:
        """Reprojection (Triggs and others, *Bundle adjustment: a modern synthesis*, 2000)."""

        def project(turn: Array, move: Array, lens: Array, x: Array) -> Array:
            x = _turned(turn, x) + move
            flat = x[:2] / x[2]
            radius = flat @ flat
            return lens[0] * flat * (1 + lens[1] * radius + lens[2] * radius**2)

        turn, move, lens = (cameras[name][camera_of] for name in ("turn", "move", "lens"))
        return jax.vmap(project)(turn, move, lens, points[point_of]) - seen

    def arm(angles: Array, lengths: Array) -> Array:
        """The joints of an arm in a plane."""
        turned = jnp.cumsum(angles)
        steps = lengths[:, None] * jnp.stack([jnp.cos(turned), jnp.sin(turned)], axis=1)
        return jnp.cumsum(steps, axis=0)

    def hand(turns: Array) -> Array:
        """The tip of an arm in space, joint by joint."""
        tip = jnp.zeros(3, turns.dtype)
        for turn in turns[::-1]:
            tip = _turned(turn, tip + jnp.asarray([0.0, 0.0, 1.0], turns.dtype))
        return tip

    def poses(states: Array) -> Array:
        """Errors of a graph of poses in the plane (Lu and Milios, 1997)."""
        first, second = states[:-1], states[1:]
        cos, sin = jnp.cos(first[:, 2]), jnp.sin(first[:, 2])
        away = second - first
        return jnp.stack(
            [cos * away[:, 0] + sin * away[:, 1], cos * away[:, 1] - sin * away[:, 0], away[:, 2]],
            axis=1,
        )

    cameras = {
        "turn": draw.normal(6, 3),
        "move": draw.normal(6, 3) + jnp.asarray([[0.0, 0.0, 5.0]], jnp.float32),
        "lens": jnp.tile(jnp.asarray([[1.0, 0.01, 0.001]], jnp.float32), (6, 1)),
    }
    return [
        Problem("bundle adjustment, 60 views", bundle, (cameras, draw.normal(25, 3)), group=GROUP),
        Problem("planar arm, 20 joints", arm, (draw.normal(20), jnp.ones(20)), group=GROUP),
        Problem("arm in space, 7 joints", hand, (draw.normal(7, 3),), group=GROUP),
        Problem("pose graph, 50 poses", poses, (draw.normal(50, 3),), group=GROUP),
    ]
