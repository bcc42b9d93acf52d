from pathlib import Path

import msgspec
import pytest
from one_fold import changed

from birdinfer.errors import ConfigError
from birdinfer.species import Species
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.prepare import PreparedData
from birdinfer.training.recipe.schema import Recipe
from birdinfer.tuning.search import FORMAT, Question, Search, check_question, clips_digest, load_question
from birdinfer.tuning.space import Choices, Range

SPACE = {"optim.lr": Range(1e-4, 1e-2), "loop.batch_size": Choices((8, 16))}


def question(recipe=None, space=None, folds=(0,)):
    return Question.of(Search(recipe=recipe or Recipe(), space=space or SPACE, folds=folds, study_dir=Path("study")))


class TestTheSameQuestion:
    def test_is_read_back_equal(self, tmp_path):
        asked = question().on("abc", 3)
        path = tmp_path / "study.json"
        path.write_text(asked.as_json())
        assert load_question(path) == asked
        check_question(load_question(path), asked, tmp_path)

    def test_does_not_hang_on_keys_that_change_no_score(self, tmp_path):
        other = msgspec.structs.replace(changed(Recipe(), loop={"num_workers": 4}), name="other")
        check_question(question(), question(other), tmp_path)

    def test_of_an_older_birdinfer_lacks_keys_that_had_their_default(self, tmp_path):
        saved = question()
        del saved.recipe["optim.clip_norm"]
        check_question(saved, question(), tmp_path)
        with pytest.raises(ConfigError, match="clip_norm"):
            check_question(saved, question(changed(Recipe(), optim={"clip_norm": 1.0})), tmp_path)


class TestAnotherQuestion:
    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            (question(changed(Recipe(), optim={"lr": 0.5})), r"another recipe: optim\.lr is 0\.001 there, here 0\.5"),
            (question(space={"optim.lr": Range(1e-4, 1e-1)}), r"space: optim\.lr is .*0\.01.* there, here .*0\.1"),
            (question(space={"optim.lr": SPACE["optim.lr"]}), r"batch_size is \[8, 16\] there, here absent"),
            (question(folds=(0, 1)), "a study of folds 0, asked is 0,1"),
        ],
    )
    def test_is_refused_by_the_first_key_that_differs(self, tmp_path, asked, message):
        with pytest.raises(ConfigError, match=message) as refused:
            check_question(question(), asked, tmp_path)
        assert "name another with --study" in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "study.json").write_text("{}")
        with pytest.raises(ConfigError, match=r"study\.json: cannot be read"):
            load_question(tmp_path / "study.json")

    def test_a_study_of_another_version_of_birdinfer(self, tmp_path):
        older = question().as_json().replace(f'"format": {FORMAT}', '"format": 1')
        (tmp_path / "study.json").write_text(older)
        with pytest.raises(ConfigError, match=r"study\.json: is of another version of birdinfer"):
            load_question(tmp_path / "study.json")

    def test_other_clips(self, tmp_path):
        with pytest.raises(ConfigError, match="a study of 3 clips, here are 4"):
            check_question(question().on("a", 3), question().on("b", 4), tmp_path)
        with pytest.raises(ConfigError, match="a study of 3 clips, here are 3 with other labels or folds"):
            check_question(question().on("a", 3), question().on("b", 3), tmp_path)


class TestDigest:
    CLIPS = tuple(Clip(f"a/{index}.ogg", None, "a") for index in range(3))

    def prepared(self, clips=CLIPS, folds=(0, 1, 0), labels=("a", "b")):
        return PreparedData(tuple(Species(label, label, "Aves") for label in labels), clips, folds)

    def test_does_not_hang_on_the_order_or_the_place(self, tmp_path):
        moved = tuple(clip._replace(path=tmp_path / clip.filename) for clip in self.CLIPS)
        assert clips_digest(self.prepared()) == clips_digest(self.prepared(moved[::-1], (0, 1, 0)[::-1]))

    def test_hangs_on_labels_folds_and_columns(self):
        named = (self.CLIPS[0]._replace(secondary_labels=("b",)), *self.CLIPS[1:])
        others = [self.prepared(named), self.prepared(folds=(0, 1, 1)), self.prepared(labels=("b", "a"))]
        assert len({clips_digest(one) for one in [self.prepared(), *others]}) == 4
