"""Every error survives what carries it elsewhere, as the result of a pool's process does: its kind, text and facts."""

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lessor
import lessor.fencing
from lessor.core.errors import LessorError
from lessor.core.results import ChainLink


def every_kind(kind: type[LessorError] = LessorError) -> Iterator[type[LessorError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from every_kind(narrower)


def public() -> list[type[LessorError]]:
    for name in [*lessor.__all__, *lessor.fencing.__all__]:
        getattr(lessor, name, None)  # each is imported when it is first asked for
        getattr(lessor.fencing, name, None)
    return [kind for kind in dict.fromkeys(every_kind()) if kind.__module__.startswith("lessor.")]


SAMPLES: dict[str, Any] = {
    "str": "some text",
    "int": 7,
    "bool": True,
    "float": 1.5,
    "loss": lessor.Loss.BROKEN,
    "circle": (ChainLink("h", "default", ("x",), 1),),
}


def example(kind: type[LessorError]) -> LessorError:
    """Make an error of a kind, with a fact for each of its arguments."""
    try:
        arguments = inspect.signature(kind).parameters.values()
    except ValueError:  # it says nothing of them: that is an exception's own
        return kind("some text")
    positional, named = [], {}
    for one in arguments:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        of_type = getattr(one.annotation, "__name__", str(one.annotation))
        value = SAMPLES.get(one.name, SAMPLES.get(of_type))
        assert value is not None, f"a sample for {one}"
        if one.kind is one.KEYWORD_ONLY:
            named[one.name] = value
        else:
            positional.append(value)
    return kind(*positional, **named) if positional or named else kind("some text")


@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", public(), ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_in_another_process_or_as_a_copy(
    kind: type[LessorError], again: Callable[[LessorError], LessorError]
) -> None:
    error = example(kind)
    error.add_note("in the nightly report")
    found = again(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert (found.args, found.indefinite, vars(found)) == (error.args, error.indefinite, vars(error))
    assert found is not error
