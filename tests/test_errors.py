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


def test_a_missing_extra_says_how_to_get_it():
    assert str(errors.MissingExtraError("onnxruntime", "cpu")) == (
        'onnxruntime: is not installed - pip install "birdinfer[cpu]"'
    )


def test_public_names_resolve():
    for name in birdinfer.__all__:
        assert getattr(birdinfer, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        birdinfer.nothing_such  # noqa: B018
