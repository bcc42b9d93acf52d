"""A kernel for each class: by hand, and classes that no species has."""

import numpy as np
import pytest

from birdinfer.errors import ConfigError
from birdinfer.postprocess.smoothing import TaxonKernels, smooth
from birdinfer.species import Species

SPECIES = (
    Species("a", class_name="Aves"),
    Species("f", class_name="Amphibia"),
    Species("u"),
    Species("i", class_name="Insecta"),
)
THIRDS = (1 / 3, 1 / 3, 1 / 3)


def test_frogs_and_birds_by_hand():
    """The frog: (.9 + 0 + .3) / 3; the bird: .2 * .9 + .6 * 0 + .2 * .3; of whom no class is known: as the bird."""
    scores = np.tile(np.float32([[0.9], [0], [0.3]]), (1, 4))
    found = TaxonKernels().bind(SPECIES)(scores, "any")
    np.testing.assert_allclose(found[1], [0.24, 0.4, 0.24, 0.4], rtol=1e-6)


def test_each_group_is_smoothed_by_itself():
    scores = np.random.default_rng(0).random((9, 4), np.float32)
    found = TaxonKernels({"Aves": (1.0,), "Amphibia": (0.1, 0.2, 0.4, 0.2, 0.1)}, THIRDS).bind(SPECIES)(scores, "any")
    assert np.array_equal(found[:, :1], scores[:, :1])
    assert np.array_equal(found[:, 1:2], smooth(scores[:, 1:2], (0.1, 0.2, 0.4, 0.2, 0.1)))
    assert np.array_equal(found[:, 2:], smooth(scores[:, 2:], THIRDS))


def test_its_reach_is_that_of_the_longest_kernel():
    assert TaxonKernels().context_rows == 1
    assert TaxonKernels({"Aves": (0.1, 0.2, 0.4, 0.2, 0.1)}, (1.0,)).context_rows == 2
    assert TaxonKernels({}, (1.0,)).context_rows == 0


def test_it_is_neutral_where_every_kernel_is():
    assert TaxonKernels({"Aves": (1.0,), "Insecta": (0.0, 1.0, 0.0)}, (1.0,)).is_neutral
    assert not TaxonKernels({"Aves": THIRDS}, (1.0,)).is_neutral
    assert not TaxonKernels({"Aves": (1.0,)}, THIRDS).is_neutral


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["Insect", "Aves"], "no species is of class 'Insect' - did you mean Insecta?"),
        (["Reptilia", "Mammalia"], "no species is of class Reptilia or Mammalia; the bundle's classes: Amphibia, Aves"),
    ],
)
def test_classes_that_no_species_has_are_refused(classes, words):
    with pytest.raises(ConfigError) as caught:
        TaxonKernels(dict.fromkeys(classes, THIRDS)).bind(SPECIES)
    assert words in str(caught.value)


def test_species_without_classes_are_refused():
    with pytest.raises(ConfigError, match="the bundle's classes: none - leave the step out"):
        TaxonKernels().bind([Species("a"), Species("b")])


def test_some_classes_may_be_absent():
    assert TaxonKernels().bind(SPECIES[:2])(np.float32([[0.5, 0.5]]), "any").shape == (1, 2)


@pytest.mark.parametrize(
    ("given", "words"), [(({"Aves": (0.5, 0.5)},), "kernels.Aves has 2 weights"), (({}, (0.5,)), "otherwise is")]
)
def test_kernels_that_are_none_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        TaxonKernels(*given)
