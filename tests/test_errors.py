import inspect

import pytest

import birdinfer
from birdinfer import errors


def leaves():
    return [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.BirdinferError)]


@pytest.mark.parametrize("cls", leaves())
def test_every_error_is_one_line_and_stands_in_the_tree(cls):
    error = cls("numpy", "extra") if cls is errors.MissingExtraError else cls("a/b.csv", "is\n  odd", "mend it")
    assert "\n" not in str(error)
    assert cls.__name__ in errors.__doc__
    if cls is not errors.BirdinferError:
        builtin = cls.__mro__[2]
        assert builtin.__module__ == "builtins"
        assert builtin.__name__ in errors.__doc__


@pytest.mark.parametrize("part", ["where", "what", "hint"])
def test_no_part_of_a_message_breaks_its_line_or_commands_a_terminal(part):
    """File names, labels and the words of other libraries stand in messages as they are."""
    parts = {"where": "a.csv", "what": "is odd", "hint": "mend it"}
    hostile = "\x1b[2Jgone\r\n\x07birdinfer: all is well\u2028\x9b1m\udcff"
    error = errors.BirdinferError(**{**parts, part: parts[part] + hostile})
    assert str(error).isprintable()
    assert getattr(error, part).startswith(parts[part])
    assert "birdinfer: all is well" in str(error)


def test_a_path_in_a_message_keeps_its_spaces():
    assert (
        str(errors.AudioError("my  day/dawn  1.ogg", "is  odd", "mend  it")) == "my  day/dawn  1.ogg: is odd - mend it"
    )


def test_a_missing_extra_says_how_to_get_it():
    assert str(errors.MissingExtraError("onnxruntime", "cpu")) == (
        'onnxruntime: is not installed - pip install "birdinfer[cpu]"'
    )


def test_public_names_resolve():
    for name in birdinfer.__all__:
        assert getattr(birdinfer, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        birdinfer.nothing_such  # noqa: B018
