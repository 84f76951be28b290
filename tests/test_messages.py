"""The list of messages in the documentation: complete, and true to what is raised."""

import copy
import pickle
import re
import tokenize
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import autodiffkit as adk
import message_sources as sources
import message_templates as templates
import messages
from autodiffkit import _errors, _memory

ROOT = Path(__file__).parents[1]
X = jnp.array([0.5, -1.0])

found = messages.messages()
everyone = pytest.mark.parametrize("message", found, ids=lambda x: f"{x.places[0]}-{x.kind}")


def classes() -> set[str]:
    return {
        name
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, _errors.AutodiffError)
    }


def counted() -> list[str]:
    """Where the tokens say that an exception of the package is made, without a syntax tree."""
    places: list[str] = []
    for file in sorted(sources.PACKAGE.glob("**/*.py")):
        with file.open("rb") as stream:
            tokens = list(tokenize.tokenize(stream.readline))
        places += [
            f"{file.relative_to(sources.PACKAGE)}:{name.start[0]}"
            for before, name, after in zip(tokens, tokens[1:], tokens[2:], strict=False)
            if name.string in classes() and after.string == "(" and before.string != "class"
        ]
    return places


# Complete -------------------------------------------------------------------------------------


def test_no_place_is_skipped():
    places = counted()
    assert sorted(places) == sorted(sources.constructions())
    assert len(places) > 100
    listed = {place for message in found for place in message.places}
    assert set(places) <= listed


def test_all_classes_are_there():
    made = classes() - {"AutodiffError"}
    assert set(sources.error_classes()) == classes()
    assert made == {message.kind for message in found} & classes()


def test_what_is_raised_by_a_helper_is_listed_for_each_of_its_callers():
    texts = [message.text for message in found if message.kind == "MatrixError"]
    for words in ("singular to working", "do not determine", "not finite; print", "is zero."):
        assert any(words in text for text in texts)


@everyone
def test_every_message_has_a_cause_and_a_remedy(message):
    assert message.cause.strip(" .")
    assert message.remedies, (
        f"{message.places}: {message.text!r} does not say what to do: write it as a sentence in "
        "the imperative (its verb is in docs/messages.py), or pass remedy="
    )
    assert all(remedy.strip(" .") for remedy in message.remedies)


@everyone
def test_fields_are_words(message):
    assert "{" not in message.text
    assert all(re.fullmatch(r"[\w' ]+", name) for name in re.findall("⟨([^⟩]*)⟩", message.text))


def test_the_page_lists_all_of_them():
    page = messages.page()
    for message in found:
        assert f"```text\n{message.text}\n```" in page
    assert page.count("**Remedy:**") == page.count("\n#### ") == len(found)
    for kind in {message.kind for message in found}:
        assert f"### {kind}\n" in page
    source = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert "from messages import page\n\nprint(page())\n```" in source
    assert "troubleshooting.md" in (ROOT / "mkdocs.yml").read_text()


# Cause and remedy -----------------------------------------------------------------------------


def message_of(*parts):
    return messages.Message("ModeError", tuple(parts), (), ("nowhere:1",))


def test_sentences_are_told_apart():
    call = templates.Field("call")
    known = message_of(call, ".mv: it is too long; got 3. Pass a shorter one, or none.")
    assert known.cause == "It is too long. Got 3."
    assert known.remedies == ["Pass a shorter one, or none."]
    assert message_of(call, ": it is too long. It has 3 entries.").remedies == []
    either = templates.Choice(((". Use fewer.",), ("; adk.hvp has no limit.",)))
    assert message_of(call, ": it is too long", either).cause == "It is too long."
    assert message_of(call, ": it is too long", either).remedies == [
        "Use fewer.",
        "adk.hvp has no limit.",
    ]


def test_templates_match_what_they_stand_for_and_nothing_else():
    lines = templates.Lines((templates.Field("rows"),))
    plural = templates.Choice((("",), ("s",)))
    template = message_of(templates.Field("call"), ": 2 (two) argument", plural, ".", lines)
    assert template.text == "⟨call⟩: 2 (two) arguments.\n  ⟨rows⟩"
    for text in ("f: 2 (two) argument.", "f: 2 (two) arguments.\n  x  1\n  y  2"):
        assert re.fullmatch(template.pattern, text)
    assert not re.fullmatch(template.pattern, "f: 2 two arguments.")


# Raised ---------------------------------------------------------------------------------------


def product(x, y):
    return x * y


def annotated(x: Float[Array, "3"]) -> Float[Array, "3"]:
    return x


def changed() -> None:
    adk.Record(x=1).x = 2


RAISED = [
    lambda: adk.jacobian(3),
    lambda: adk.jacobian(product)(X),
    lambda: adk.jacobian(product)(jax.ShapeDtypeStruct((2,), "float32"), X),
    lambda: adk.directional_derivative(lambda direction: direction),
    lambda: adk.gauss_newton(product, 3.0),
    lambda: adk.jacobian(product, wrt=0),
    lambda: adk.jacobian(product, of=[]),
    lambda: adk.jacobian(product, wrt="z")(X, X),
    lambda: adk.jacobian(product, wrt="x.0")(X, X),
    lambda: adk.jacobian(product, wrt=lambda path, leaf: False)(X, X),
    lambda: adk.jacobian(product, chunk_size=0),
    lambda: adk.jacobian(product, memory_limit="much"),
    lambda: adk.jacobian(product, layout="compact", chunk_size=2),
    lambda: adk.hessian(product, blocks="all"),
    lambda: adk.directional_derivative(product, order=0),
    lambda: adk.fisher(product, 3),
    lambda: adk.fisher(product, "normal"),
    lambda: adk.jacobian(product)(1, 2),
    lambda: adk.jacobian(product, wrt="y")(X, 2),
    lambda: adk.jacobian(lambda x: "done")(X),
    lambda: adk.grad(product)(X, X),
    lambda: adk.jacobian(product, has_aux=True)(X, X),
    lambda: adk.jacobian(annotated)(X),
    lambda: adk.jacobian(product, mode="reverse"),
    lambda: adk.linearize(product)(X, X).x,
    lambda: adk.linearize(product)(X, X).mv(X),
    lambda: adk.linearize(product)(X, X).mv(x=X[:1]),
    lambda: adk.linearize(product)(X, X).mv(z=X),
    lambda: 2j * adk.linearize(product)(X, X),
    lambda: adk.linearize(product, wrt="x")(X, X).unravel(X[:1]),
    lambda: adk.jacobian(product, wrt="x")(X, X).y,
    lambda: adk.jacobian(product, wrt="x")(X, X).z,
    lambda: adk.jacobian(product)(X, X).slogdet(),
    lambda: adk.grad(jnp.sum)(X).of(0),
    lambda: X - adk.grad(jnp.sum)(X),
    lambda: [*adk.grad(jnp.sum)(X)],
    lambda: adk.jacobian(product)(X, X)["x", "y"],
    lambda: adk.jacobian(lambda x: {"a": x})(X).a,
    lambda: adk.linearize(product)(X, X).plot(),
    lambda: adk.grad(lambda x: (x, x))(1.0),
    lambda: adk.jacobian(product, X, X),
    lambda: adk.jacobian(product, argnums=1),
    lambda: adk.jacobian(product, x=X),
    lambda: adk.jacobian(product, wtr="x"),
    changed,
]


@pytest.mark.parametrize("call", RAISED, ids=range(len(RAISED)))
def test_what_is_raised_is_listed(call):
    with pytest.raises((adk.AutodiffError, AttributeError, TypeError)) as caught:
        call()
    error = caught.value
    listed = [
        message
        for message in found
        if message.kind == type(error).__name__ and re.fullmatch(message.pattern, str(error))
    ]
    assert listed, str(error)
    # The note is that of the message, and whatever matches has one or has none.
    notes = {messages.Message("", message.note, (), ()).text for message in listed}
    assert notes == {getattr(error, "remedy", None) or ""}


def test_most_messages_are_told_apart_by_their_texts():
    texts = ["jacobian(f): there is no mode 'a'; it is one of 'auto', 'fwd', 'rev'."]
    texts.append(str(_memory.too_little("jacobian(f)", 2048, 1024)))
    for text in texts:
        assert len([m for m in found if re.fullmatch(m.pattern, text)]) == 1


# Remedies below the text ------------------------------------------------------------------------


def test_a_remedy_is_a_note():
    error = adk.StructureError("it does not fit", remedy="Make it fit.")
    assert str(error) == "it does not fit"
    assert error.remedy == "Make it fit."
    assert traceback.format_exception_only(error)[1:] == ["Make it fit.\n"]
    assert adk.StructureError("it does not fit").remedy is None


@pytest.mark.parametrize("again", [copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", [adk.ModeError, adk.NotDifferentiatedError, adk.MatrixError])
def test_remedies_are_copied_and_pickled(kind, again):
    error = again(kind("it does not fit", remedy="Make it fit."))
    assert (type(error), str(error), error.remedy) == (kind, "it does not fit", "Make it fit.")
    assert error.__notes__ == ["Make it fit."]


def test_a_remedy_is_shown_where_the_text_ends_in_a_table():
    with pytest.raises(adk.AnnotationError) as caught:
        adk.jacobian(annotated)(np.ones(2, np.float32))
    assert caught.value.remedy is not None
    assert "typecheck=False" in caught.value.remedy
