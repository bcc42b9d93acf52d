"""Templates become scripts; what does not fit is named."""

import subprocess

import pytest

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.training.launch import slurm as templates
from birdinfer.training.launch.slurm import ARRAY, SEARCH, SEVERAL_PROCESSES, script, shipped


@pytest.fixture
def own(tmp_path):
    """Writes a template of the user's own."""

    def write(text):
        path = tmp_path / "my.sbatch"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", [ARRAY, SEARCH, SEVERAL_PROCESSES])
def test_each_is_a_script_that_bash_can_read_and_continues_after_a_requeue(name):
    text = script(shipped(name), ("module load cuda",))
    assert "@@" not in text
    assert "\nmodule load cuda\n" in text
    assert "scontrol requeue" in text
    for option in ("--requeue", "--open-mode=append", "--signal=B:USR1@120"):
        assert f"\n#SBATCH {option}\n" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_options_of_sbatch_stand_before_the_first_command():
    # SLURM reads them no further.
    lines = script(shipped(SEVERAL_PROCESSES)).splitlines()
    commands = [index for index, line in enumerate(lines) if line and not line.startswith("#")]
    assert max(index for index, line in enumerate(lines) if line.startswith("#SBATCH")) < commands[0]


def test_a_template_of_ones_own_needs_no_gaps(own):
    assert script(own('#!/bin/bash\nsrun "$@"\n')) == '#!/bin/bash\nsrun "$@"\n'


def test_setup_lines_stand_as_they_were_given(own):
    lines = ("export X='a  b'", 'echo "$X" @@{guard} \\1')
    assert script(own("@@{setup}\nend"), lines) == "\n".join([*lines, "end"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("srun\n", "has no line @@{setup}, where --setup would go - add it"),
        ("@@{setup}\n@@{fold}\n", "has a gap @@{fold}, known are @@{setup} and @@{guard}"),
        ("@@{setup}\n@@ \n", "has a gap"),
        (b"\xff\xfe", "cannot be read as a template"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(own, text, error):
    path = own(text)
    with pytest.raises(ConfigError) as refused:
        script(path, ("module load cuda",))
    assert str(refused.value).startswith(f"{path}: ")
    assert error in str(refused.value)


def test_a_template_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "gone.sbatch", tmp_path):
        with pytest.raises(InputNotFoundError, match="no such template - copy one"):
            script(path)


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    inside = tmp_path / "birdinfer" / "slurm_templates"
    inside.mkdir(parents=True)
    monkeypatch.setattr(templates, "__file__", str(tmp_path / "birdinfer" / "training" / "launch" / "slurm.py"))
    with pytest.raises(InputNotFoundError, match=r"this installation has no array\.sbatch"):
        shipped(ARRAY)
    (inside / ARRAY).write_text("x")
    assert shipped(ARRAY) == inside / ARRAY
