"""What a person reads of a plan, to the letter."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import autodiffkit as adk
from autodiffkit._naming import short_place
from functions import CASES, make_affine
from places import place

TALL, WIDE = jnp.ones((300, 3)), jnp.ones((3, 300))
LOOP = CASES["while_loop"].function
RULE = CASES["custom_vjp"].function
X = jnp.arange(1.0, 5.0)


def lines(*texts):
    return "\n".join(texts)


def test_forward_mode():
    def f(x, steps):
        return {"out": TALL @ x, "steps": steps}

    assert str(adk.jacobian(f).plan(jnp.ones(3), 2)) == lines(
        "Plan of jacobian(f): forward mode",
        "  why     3 forward against 300 reverse directions",
        "  sweeps  3 directions pushed forward from",
        f"            x  float32[3]  axis 0 mixed by dot_general at {place(f, 'TALL @ x')}",
        "  to      300 entries of",
        "            out  float32[300]",
        "  work    this plan           0 flop  7.2 kB moved",
        "          reverse mode alone  0 flop  7.2 kB moved",
        "  held    an int: steps",
    )


def test_reverse_mode():
    def f(params, x):
        return WIDE @ x, jnp.sum(params["w"])

    params = {"w": jnp.ones(50), "n": 3, "name": "dense"}
    assert str(adk.jacobian(f).plan(params, jnp.ones(300))) == lines(
        "Plan of jacobian(f): reverse mode",
        "  why     301 forward against 4 reverse directions, of 350 and 4",
        "  sweeps  4 directions pulled back from",
        f"            0  float32[3]  axis 0 mixed by dot_general at {place(f, 'WIDE @ x')}",
        "            1  float32[]",
        "  onto    350 entries of",
        "            params.w  float32[50]",
        "            x         float32[300]",
        "  zeros   0 by params.w, 1 by x: no path",
        "  work    this plan           0 flop  7.21 kB moved",
        "          forward mode alone  0 flop  7.21 kB moved",
        "  held    an int: params.n",
        "          a str: params.name",
    )


def encoded(x, t):
    code = jnp.tanh(WIDE @ x)
    return {"vector": TALL @ code * t, "scalar": jnp.sum(x)}


def test_mixed_mode():
    plan = adk.jacobian(encoded, wrt="x").plan(jnp.ones(300), 2.0)
    before, onwards = place(encoded, "WIDE @ x"), place(encoded, "TALL @ code")
    code = f"dot_general at {before}"
    pad = " " * (len(code) - len("scalar"))
    text = str(plan).split("\n  work")[0]
    assert text == lines(
        "Plan of jacobian(encoded): mixed mode",
        "  why     a cut of 4 where plain modes take 300 forward against 301 reverse directions",
        "  sweeps  4 directions pulled back from",
        f"            {code}  float32[3]  axis 0 mixed by dot_general at {before}",
        f"            scalar{pad}  float32[]",
        "  onto    300 entries of",
        "            x  float32[300]",
        "  sweeps  3 directions pushed forward from",
        f"            {code}  float32[3]  axis 0 mixed by dot_general at {onwards}",
        "  to      300 entries of",
        "            vector  float32[300]",
        "  join    by a product over the 3 in between",
    )
    assert "\n          forward mode alone  " in str(plan)
    assert "\n          reverse mode alone  " in str(plan)
    assert str(plan).endswith("\n  held    not in wrt: t")


def alternating(x):
    return RULE(LOOP(x))


def test_a_chain():
    text = str(adk.jacobian(alternating).plan(X))
    text, work = text.split("\n  work    this plan  ")
    loop = f"while_loop at {place(LOOP, 'lax.while_loop')}"
    rule = f"custom_vjp at {place(RULE, '_square')}"
    cannot = dict(line.split(": ", 1) for line in text.split("\n  cannot  ")[1].split("\n"))
    (first, no_pull), (second, no_push) = cannot.items()
    assert (first.strip(), second.strip()) == (f"pull through {loop}", f"push through {rule}")
    assert no_pull.startswith("Reverse-mode differentiation does not work")
    assert no_push.startswith("can't apply forward-mode autodiff")
    assert text.split("\n  cannot")[0] == lines(
        "Plan of jacobian(alternating): mixed mode",
        f"  why     forward mode is impossible: it stops at {rule}; reverse mode is impossible: "
        f"it stops at {loop}",
        "  sweeps  4 directions pushed forward from",
        "            x  float32[4]",
        "  to      4 entries of",
        f"            {loop}  float32[4]",
        "  sweeps  4 directions pulled back from",
        "            output  float32[4]",
        "  onto    4 entries of",
        f"            {loop}  float32[4]",
        "  join    by the product of these",
    )
    assert "\n" not in work


def test_what_is_impossible():
    plan = adk.jacobian(lambda x: jnp.sum(LOOP(x))).plan(X)
    loop = f"while_loop at {place(LOOP, 'lax.while_loop')}"
    assert plan.reason == f"reverse mode is impossible: it stops at {loop}"
    assert f"\n  cannot  pull through {loop}: Reverse-mode" in str(plan)


def test_a_hessian_with_symmetry():
    def f(x, y):
        return x @ TALL @ y

    text = str(adk.hessian(f).plan(jnp.ones(300), jnp.ones(3)))
    head, tail = text.split("\n  sweeps", 1)
    assert head.startswith(
        "Plan of hessian(f): forward mode\n  why     3 forward against 3 reverse directions"
    )
    sweeps, work = tail.split("\n  work")
    assert sweeps == lines(
        "  3 directions pushed forward from",
        "            y  float32[3]  axis 0 mixed by dot_general",
        "  to      300 entries of",
        "            x  float32[300]",
        "  equal   y by x: by symmetry, not swept",
        "  zeros   x by x, y by y: no path",
    )
    assert work.endswith(
        "\n  of      the first derivative, itself by reverse mode (0 forward, 1 reverse)"
    )


def test_without_sweeps():
    assert str(adk.jacobian(lambda x: jnp.zeros(2)).plan(X)) == lines(
        "Plan of jacobian(<lambda>): forward mode",
        "  why     no output depends on an input",
        "  sweeps  none",
        "  zeros   output by x: no path",
        "  work    this plan           0 flop  0 B moved",
        "          reverse mode alone  0 flop  0 B moved",
    )


def test_a_module_by_its_leaves():
    plan = adk.jacobian(CASES["module"].function, wrt=("model.*", "x")).plan(
        make_affine("float32"), X[:3]
    )
    text = str(plan)
    assert "model.weight  float32[2, 3]" in text
    assert "\n  zeros   norm by model.bias, norm by x: no path" in text
    assert text.endswith("\n  held    an int: model.power\n          a function: model.activation")


def test_a_long_plan_is_cut_short():
    tree = {f"p{i}": jnp.ones(()) for i in range(40)}
    text = str(adk.jacobian(lambda tree, x: x * sum(tree.values()), mode="fwd").plan(tree, X))
    assert "\n            and 29 more\n" in text
    assert "mode='fwd' was asked for (41 forward against 4 reverse directions, of 44 and 4)" in text
    assert len(text.splitlines()) < 25
    held = str(adk.jacobian(lambda tree, x: x * sum(tree.values()), wrt="x").plan(tree, X))
    assert "not in wrt: tree.p0, tree.p1, tree.p10, tree.p11, ... (40)" in held

    def f(tree):
        return {name: jnp.sin(v) for name, v in tree.items()}

    zeros = str(adk.jacobian(f).plan(tree))
    assert (
        "  zeros   p0 by tree.p1, p0 by tree.p10, p0 by tree.p11, p0 by tree.p12, ... (1560)"
        in zeros
    )


def test_no_list_is_cut_by_one():
    def plan(count, mode):
        tree = {f"p{i:02}": 1.0 for i in range(count)}
        return str(adk.jacobian(lambda tree, n: sum(tree.values()), mode=mode).plan(tree, 1))

    assert "and " not in plan(4, "rev").replace("asked for (", "")
    assert "tree.p03" in plan(4, "rev").split("onto")[1]
    assert plan(5, "rev").split("tree.p02")[1].split("\n")[1].strip() == "and 2 more"
    assert "tree.p12" in plan(13, "fwd")
    assert "more" not in plan(13, "fwd")
    assert "\n            and 2 more\n" in plan(14, "fwd")

    def held(count):
        return str(adk.jacobian(lambda x, tree: x).plan(1.0, list(range(count))))

    assert "an int: tree.0, tree.1, tree.2, tree.3, tree.4" in held(5)
    assert "tree.4, ..." not in held(5)
    assert "an int: tree.0, tree.1, tree.2, tree.3, ... (6)" in held(6)

    one = str(adk.jacobian(lambda x: jnp.zeros(2)).plan([1.0] * 5))
    assert "output by x.3, output by x.4: no path" in " ".join(one.split())
    more = str(adk.jacobian(lambda x: jnp.zeros(2)).plan([1.0] * 6))
    assert "output by x.3, ... (6): no path" in " ".join(more.split())


def test_the_line_for_the_log():
    plan = adk.jacobian(encoded, wrt="x").plan(jnp.ones(300), 2.0)
    assert plan.summary == (
        "jacobian(encoded): mixed mode, 3 forward and 4 reverse sweeps; a cut of 4 where plain "
        "modes take 300 forward against 301 reverse directions"
    )


def test_amounts_are_rounded_to_three_digits():
    def plan(n):
        """Of two products with n numbers, one of which is free."""
        row = jnp.ones((1, n))
        return str(adk.jacobian(lambda x: row @ (x @ row), mode="rev").plan(jnp.ones(1)))

    assert "  1 kflop  " in plan(500)
    assert "  10 kflop  " in plan(4998)
    assert "  100 kflop  " in plan(49998)


# Places --------------------------------------------------------------------------------------


def test_a_line_of_an_installed_package_begins_with_the_package():
    tall = eqx.nn.Linear(300, 300, key=jax.random.key(0))
    narrow = eqx.nn.MLP(300, 300, 3, 1, key=jax.random.key(0))
    text = repr(adk.jacobian(lambda x: tall(narrow(x))).plan(jnp.ones(300)))
    line = place(inspect.unwrap(eqx.nn.Linear.__call__), "self.weight @ x")
    assert line.startswith("equinox/nn/_linear.py:")
    assert line in " ".join(text.split())
    assert "site-packages" not in text


def test_it_says_where_of_the_users_it_was_called():
    down, up = (eqx.nn.Linear(*sizes, key=jax.random.key(0)) for sizes in ((300, 2), (2, 300)))

    def model(x):
        hidden = jnp.tanh(down(x))
        return jnp.tanh(up(hidden))

    inside = place(inspect.unwrap(eqx.nn.Linear.__call__), "self.weight @ x")
    text = repr(adk.jacobian(model, mode="fwd").plan(jnp.ones(300)))
    called = f"{inside}, called at {place(model, 'down(x)')}"
    assert called in " ".join(text.split())


NAMES = {
    "/tmp/ipykernel_123/3456789.py": "cell",
    "/var/folders/x/T/ipykernel_4/12.py": "cell",
    "C:\\Users\\me\\Temp\\ipykernel_4\\12.py": "cell",
    "/tmp/xpython_4/12.py": "cell",
    "<ipython-input-3-0a1b2c>": "cell",
    "/v/lib/python3.12/site-packages/equinox/nn/_linear.py": "equinox/nn/_linear.py",
    "/usr/lib/python3/dist-packages/a/b.py": "a/b.py",
    "C:\\v\\Lib\\site-packages\\a\\b.py": "a\\b.py",
    "/home/me/ipykernel_test/12a.py": "/home/me/ipykernel_test/12a.py",
    "/home/me/site-packages.py": "/home/me/site-packages.py",
}


@pytest.mark.parametrize("name", NAMES)
def test_places_are_shortened_to_what_people_know(name):
    assert short_place(f"{name}:6:11 (f)") == f"{NAMES[name]}:6:11 (f)"
    assert short_place(name) == NAMES[name]


CELL = """
def f(x):
    return TALL @ jnp.sin(x)

def g(x):
    return jnp.sin(x) * float(x[0])
"""


def test_a_cell_of_a_notebook_is_called_so():
    names = {"TALL": TALL, "jnp": jnp}
    exec(compile(CELL, "/tmp/ipykernel_123/456.py", "exec"), names)
    assert "mixed by dot_general at cell:3:11 (f)" in repr(adk.jacobian(names["f"]).plan(X[:3]))
    with pytest.raises(adk.ModeError, match=r"of NumPy at cell:6 \(g\), and"):
        adk.jacobian(names["g"])(X)
