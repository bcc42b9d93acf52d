import pytest
from make_bundles import write_bundle

from birdinfer import Bundle
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.inference.bundle import store_settings
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.members import remove_member, with_weights


@pytest.fixture
def folder(tmp_path):
    """A bundle of two folds."""
    return write_bundle(tmp_path / "bundle")


def names(bundle):
    return [member.name for member in bundle.manifest.members]


def test_with_weights_changes_those_that_are_named(folder):
    first, second = names(bundle := Bundle.load(folder))
    changed = with_weights(bundle, {second: 0.5})
    assert [member.weight for member in changed.manifest.members] == [1, 0.5]
    assert first == changed.manifest.members[0].name


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"perch": 1.0}, "there is no 'perch' in .* - it has "),
        ({0: -1.0}, "has weight -1"),
        ({0: float("nan")}, "has weight nan"),
        ({0: 0.0, 1: 0.0}, "no member would weigh anything"),
    ],
)
def test_with_weights_refuses_what_cannot_be(folder, weights, problem):
    bundle = Bundle.load(folder)
    named = {names(bundle)[key] if isinstance(key, int) else key: weight for key, weight in weights.items()}
    with pytest.raises(ConfigError, match=problem):
        with_weights(bundle, named)


def test_remove_member_takes_its_graph_along(folder):
    first, second = names(Bundle.load(folder))
    files = {member.name: member.graphs["fp32"].file for member in Bundle.load(folder).manifest.members}
    assert names(remove_member(folder, first)) == [second]
    assert names(Bundle.load(folder)) == [second]
    assert not (folder / files[first]).exists()
    assert (folder / files[second]).exists()


def test_remove_member_refuses_the_last_one_and_strangers(folder):
    first, second = names(Bundle.load(folder))
    with pytest.raises(ConfigError, match="there is no 'perch'"):
        remove_member(folder, "perch")
    remove_member(folder, first)
    with pytest.raises(ConfigError, match="is the only member"):
        remove_member(folder, second)
    with pytest.raises(InputNotFoundError):
        remove_member(folder.with_name("gone"), first)
    assert names(Bundle.load(folder)) == [second]


def test_remove_member_refuses_one_that_the_blend_needs(folder):
    first, second = names(Bundle.load(folder))
    gate = Blend("gate", by=first, threshold=0.2)
    store_settings(folder, lambda bundle: bundle.with_scoring(gate, bundle.manifest.post))
    with pytest.raises(ConfigError, match=first):
        remove_member(folder, first)
    assert names(Bundle.load(folder)) == [first, second]
