import dataclasses

import msgspec
import pytest
from one_fold import Recorder, changed, job, session

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.species import Species
from birdinfer.training.checkpoint import Header, Progress, save_checkpoint
from birdinfer.training.data.folds_file import TEST, write_folds
from birdinfer.training.fold import check_species, check_start_weights, init_state, model_of_fold, seen_before
from birdinfer.training.models.registry import build_model

SPECIES = (Species("comcuc", "comcuc", "", "Aves"), Species("0012", "0012", "", "Aves"))


@pytest.fixture
def continued(plain_recipe, tmp_path):
    """A recipe whose folds continue from files that hold folds 0 and 1; the file of fold 2 holds fold 0."""
    for place, fold in enumerate((0, 1, 0)):
        model = build_model(plain_recipe.model, len(SPECIES), plain_recipe.input_config, start=False)
        header = Header(plain_recipe, SPECIES, fold, Progress(), "data", {})
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        save_checkpoint(tmp_path / f"fold{place}.safetensors", header, tensors)
    weights = str(tmp_path / "fold{fold}.safetensors")
    return msgspec.structs.replace(plain_recipe, model=msgspec.structs.replace(plain_recipe.model, weights=weights))


def test_each_fold_has_weights_of_its_own(continued, tmp_path):
    assert model_of_fold(continued.model, 1).weights == str(tmp_path / "fold1.safetensors")


def test_weights_without_a_place_for_the_fold_are_the_same_for_all(plain_recipe):
    config = msgspec.structs.replace(plain_recipe.model, weights="timm.safetensors")
    assert model_of_fold(config, 3) == config


def test_what_fits_is_not_warned_about(continued, plain_recipe):
    check_start_weights(continued, (0, 1))
    check_species(continued, 0, SPECIES)
    check_start_weights(plain_recipe, (0, 1, 2))
    check_species(plain_recipe, 0, SPECIES[:1])


def test_a_file_that_is_missing_is_reported_before_anything_is_trained(continued):
    with pytest.raises(InputNotFoundError, match=r"fold3\.safetensors: no such weights"):
        check_start_weights(continued, (0, 3))


def test_another_folds_weights_have_used_what_is_held_out(continued):
    with pytest.raises(CheckpointError, match=r"fold2.*is of fold 0: it was trained on clips that fold 2 holds out"):
        check_start_weights(continued, (2,))


def test_a_teacher_of_another_fold_is_refused_too(continued, tmp_path):
    """A teacher that learned the held-out clips would show the learner of them."""
    model = msgspec.structs.replace(continued.model, weights=str(tmp_path / "fold1.safetensors"))
    check_start_weights(msgspec.structs.replace(continued, model=model), (0,))  # mere weights may be anybody's
    loss = msgspec.structs.replace(continued.loss, teacher_share=0.5)
    with pytest.raises(CheckpointError, match="is of fold 1"):
        check_start_weights(msgspec.structs.replace(continued, model=model, loss=loss), (0,))


def test_continued_needs_a_checkpoint_not_mere_tensors(continued, tmp_path):
    from safetensors.torch import save_file

    model = build_model(continued.model, 2, continued.input_config, start=False)
    save_file(model.state_dict(), tmp_path / "fold0.safetensors")
    with pytest.raises(CheckpointError, match="holds tensors but no birdinfer state"):
        check_start_weights(continued, (0,))


def test_other_species_are_refused(continued):
    with pytest.raises(CheckpointError, match="was trained for other species than the 1 of the data"):
        check_species(continued, 0, SPECIES[:1])


def test_clips_that_pretraining_has_seen_are_found(plain_recipe, clips_dir, tmp_path):
    wanted = job(plain_recipe, clips_dir, tmp_path / "new")
    held_out = wanted.validation[:3]
    model = build_model(plain_recipe.model, 4, plain_recipe.input_config, start=False)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    weights = tmp_path / "pre" / "fold0" / "best.safetensors"
    save_checkpoint(weights, Header(plain_recipe, wanted.species, 0, Progress(), "data", {}), tensors)
    write_folds(tmp_path / "pre" / "folds.csv", held_out, (0, 1, TEST))
    for given in (weights, weights.parent):
        wanted = dataclasses.replace(wanted, recipe=changed(plain_recipe, model={"weights": str(given)}))
        assert seen_before(wanted) == [held_out[1].filename]
    recorder = Recorder()
    init_state(wanted, "fp32", session(recorder))
    assert "fold 0: its weights were trained on 1 of the clips that are held out" in recorder.messages[0]
    (tmp_path / "pre" / "folds.csv").unlink()
    assert seen_before(wanted) == []
