"""With a stand-in for Kaggle's client: it notes what it is asked, and answers in the words of version 2.2."""

import json
import os
import shlex
import sys

import pytest
from made_wheels import write_wheel

import birdinfer as package
from birdinfer.callbacks import Callback
from birdinfer.errors import (
    BirdinferError,
    BundleError,
    ConfigError,
    InputNotFoundError,
    MissingExtraError,
    OutputError,
)
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.pack import PackSettings, pack
from birdinfer.kaggle.push import PushSettings, check_packed, push, push_commands
from birdinfer.kaggle.scores import origin_of, read_origin, with_origin

STAND_IN = """#!{python}
import json, sys
from pathlib import Path

here = Path(__file__).parent
with (here / "asked.jsonl").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.loads((here / "answers.json").read_text())
verb = " ".join(sys.argv[1:3])
queue = answers[verb]
code, out, err = queue.pop(0) if len(queue) > 1 else queue[0]  # the last answer is given for ever
(here / "answers.json").write_text(json.dumps(answers))
print(out)
print(err, file=sys.stderr)
sys.exit(code)
"""

DATASET, KERNEL = "someone/birdinfer-five-folds", "someone/birdinfer-five-folds-submission"
ABSENT = (1, "", "404 Client Error: Not Found for url: https://x\n\nThe resource was not found. Check the spelling")
NO_TOKEN = (1, "Authentication required to call the Kaggle API.\n\nFirst, you will need a Kaggle account.", "")
PUSHED = (0, f"Kernel version 7 successfully pushed.  Please check progress at https://x/code/{KERNEL}", "")


def state(status, version):
    return (0, json.dumps({"status": status, "current_version_number": version}), "")


def run(status, failure=""):
    said = f'{KERNEL}/7 has status "KernelWorkerStatus.{status}"'
    return (0, said + (f'\nFailure message: "{failure}"' if failure else ""), "")


def unmounted(kind):
    said = f"The following are not valid {kind} sources and could not be added to the kernel: ['x']"
    return (0, f"{said}\n{PUSHED[1]}", "")


GOOD = {
    "datasets status": [state("ready", 3), state("ready", 3), state("blobs_received", 4), state("ready", 4)],
    "datasets create": [(0, "Your private Dataset is being created. Please check progress at https://x", "")],
    "datasets version": [
        (0, "Upload successful\nDataset version is being created. Please check progress at https://x", "")
    ],
    "kernels push": [PUSHED],
    "kernels status": [run("QUEUED"), run("RUNNING"), run("RUNNING"), run("COMPLETE")],
    "competitions submit": [(0, "Submission ref: 99\nSuccessfully submitted to BirdCLEF", "")],
}


@pytest.fixture
def packed(tmp_path, bundle):
    """A whole submission."""
    write_wheel(tmp_path / "wheels", f"birdinfer-{package.__version__}")
    out = tmp_path / "submission" / "five"
    settings = PackSettings(
        bundle=bundle,
        out=out,
        competition=competition("birdclef-2026"),
        engine="onnxruntime",
        owner="someone",
        title="birdinfer five folds",
        wheel_folders=(tmp_path / "wheels",),
    )
    pack(settings)
    return out


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """``kaggle(verb=[answers])`` puts a client on the PATH; ``kaggle.asked()`` -> what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def answering(**answers):
        named = {verb.replace("_", " "): each for verb, each in answers.items()}
        (folder / "answers.json").write_text(json.dumps(GOOD | named))
        program = folder / "kaggle"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)

    answering.asked = lambda: [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return answering


class Messages(Callback):
    def __init__(self):
        self.lines = []

    def on_message(self, line):
        self.lines.append(line)


def pushed(folder, **settings):
    """What was pushed, and the messages."""
    messages = Messages()
    return push(PushSettings(packed=folder, poll_seconds=0.01, **settings), messages), messages.lines


class TestASubmission:
    def test_is_versioned_waited_for_run_and_handed_in(self, packed, kaggle):
        kaggle()
        done, messages = pushed(packed, message="third try", submit=True)
        dataset, kernel = str(packed / "dataset"), str(packed / "kernel")
        ask = ["datasets", "status", DATASET, "--format", "json"]
        look = ["kernels", "status", f"{KERNEL}/7"]
        assert kaggle.asked() == [
            ask,
            ["datasets", "version", "--path", dataset, "--message", "third try", "--keep-tabular"],
            *([ask] * 3),
            ["kernels", "push", "--path", kernel],
            *([look] * 4),
            [
                *("competitions", "submit", "birdclef-2026", "--file", "submission.csv"),
                *("--kernel", KERNEL, "--version", "7", "--message", with_origin("third try", origin_of(packed))),
            ],
        ]
        assert done.pages == (DATASET, KERNEL, "birdclef-2026")
        assert (done.kernel_version, done.kernel_status) == (7, "complete")
        assert done.submitted == "Submission ref: 99 Successfully submitted to BirdCLEF"
        assert messages == [
            f"data set {DATASET}: version 3 is there, uploading the next",
            f"data set {DATASET}: version 4 is ready",
            f"notebook {KERNEL}: version 7 runs",
            *(f"notebook {KERNEL}: version 7 is {status}" for status in ("queued", "running", "complete")),
        ]

    @pytest.mark.parametrize("said", [ABSENT, (1, "", "Permission 'datasets.get' was denied")])
    def test_is_made_the_first_time(self, packed, kaggle, said):
        kaggle(datasets_status=[said, said, state("not_yet_persisted", 0), state("ready", 1)])
        done, _ = pushed(packed)
        assert ["datasets", "create", "--path", str(packed / "dataset"), "--keep-tabular"] in kaggle.asked()
        assert not [words for words in kaggle.asked() if words[:2] == ["datasets", "version"]]
        assert done.kernel_version == 7

    def test_is_not_handed_in_and_its_run_not_waited_for_unless_asked(self, packed, kaggle):
        kaggle()
        done, _ = pushed(packed)
        assert (done.kernel_status, done.submitted) == ("", "")
        assert kaggle.asked()[-1][:2] == ["kernels", "push"]

    def test_is_waited_for_without_being_handed_in(self, packed, kaggle):
        kaggle()
        assert pushed(packed, wait=True)[0].kernel_status == "complete"
        assert kaggle.asked()[-1][:2] == ["kernels", "status"]

    def test_continues_where_the_client_warns_about_its_own_age(self, packed, kaggle):
        ready = json.dumps({"status": "ready", "current_version_number": 4})
        kaggle(
            datasets_status=[state("ready", 3), (0, f"Warning: outdated API version\n{ready}", "a warning {of} more")]
        )
        with pytest.raises(OutputError, match="Kaggle's client says"):
            pushed(packed, ready_minutes=0)
        kaggle(datasets_status=[state("ready", 3), (0, f"Warning: outdated API version\n{ready}", "more of it")])
        assert pushed(packed)[0].kernel_version == 7


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("answers", "words"),
        [
            (
                {"datasets_version": [(0, "Dataset version creation error: Incompatible Dataset Type", "")]},
                "Kaggle's client says: Dataset version creation error: Incompatible Dataset Type - correct that",
            ),
            (
                {
                    "datasets_status": [ABSENT],
                    "datasets_create": [(1, "", "403 Client Error: Forbidden for url: https://x")],
                },
                "Kaggle's client says: 403 Client Error: Forbidden",
            ),
            (
                {"datasets_status": [(1, "", "500 Server Error: oops\n\nThis is a problem on Kaggle's side")]},
                "500 Server",
            ),
            ({"datasets_status": [(0, "{}", "")]}, "Kaggle's client says: {}"),
            ({"datasets_status": [state("ready", 3), state("failed", 4)]}, "is failed - look at its page on Kaggle"),
            (
                {
                    "datasets_version": [
                        (0, "Skipping folder: old; use '--dir-mode'\nDataset version is being created.", "")
                    ]
                },
                "Kaggle's client left something out .Skipping folder: old",
            ),
            (
                {"kernels_push": [(0, "Kernel push error: Maximum batch CPU session count of 5 reached.", "")]},
                "Maximum batch",
            ),
            ({"kernels_push": [unmounted("dataset")]}, "Kaggle does not mount the data set"),
            ({"kernels_push": [unmounted("competition")]}, "does not mount the competition - join the competition"),
            (
                {"kernels_status": [run("RUNNING"), run("ERROR", "Notebook Exceeded the allowed compute")]},
                "version 7 ended with error .Notebook Exceeded the allowed compute. - see: kaggle kernels logs",
            ),
            ({"kernels_status": [run("CANCEL_ACKNOWLEDGED")]}, "version 7 ended with cancel_acknowledged - see"),
            (
                {"kernels_status": [(1, "", f"Cannot access kernel '{KERNEL}' (Permission was denied).")]},
                "Cannot access",
            ),
            (
                {"competitions_submit": [(1, "", "400 Client Error: Bad Request")]},
                "submission to birdclef-2026: .* 400",
            ),
            (
                {"datasets_status": [(1, "", "Max retries exceeded with url: /v1 (NameResolutionError)")]},
                "kaggle: cannot reach Kaggle - see to the network",
            ),
        ],
    )
    def test_is_one_line_in_kaggles_words(self, packed, kaggle, answers, words):
        kaggle(**answers)
        with pytest.raises(OutputError, match=words) as raised:
            pushed(packed, submit=True)
        assert "\n" not in str(raised.value)

    def test_a_data_set_that_never_becomes_ready_ends_the_wait(self, packed, kaggle):
        kaggle(datasets_status=[state("ready", 3), state("reprocessing", 4)])
        with pytest.raises(OutputError, match=r"is still not ready after 0.001 minutes \(reprocessing\) - wait until"):
            pushed(packed, ready_minutes=0.001)
        assert not [words for words in kaggle.asked() if words[0] == "kernels"]

    def test_the_older_version_that_is_still_ready_is_not_taken_for_the_new_one(self, packed, kaggle):
        kaggle(datasets_status=[state("ready", 3)])
        with pytest.raises(OutputError, match=r"is still not ready"):
            pushed(packed, ready_minutes=0.001)

    def test_a_run_that_never_ends_ends_the_wait(self, packed, kaggle, monkeypatch):
        monkeypatch.setattr("birdinfer.kaggle.push._QUEUE_MINUTES", -90)
        kaggle(kernels_status=[run("RUNNING")])
        with pytest.raises(OutputError, match="is running after 0 minutes"):
            pushed(packed, wait=True)

    @pytest.mark.parametrize("said", [NO_TOKEN, (1, "", "401 Client Error: Unauthorized for url: https://x")])
    def test_without_a_token_the_user_is_messages_how_to_log_in(self, packed, kaggle, said):
        kaggle(datasets_status=[said])
        with pytest.raises(ConfigError, match="knows no valid token for your account - run: kaggle auth login"):
            pushed(packed)

    def test_without_the_client_the_extra_is_named(self, packed, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(MissingExtraError, match=r'pip install "birdinfer\[kaggle\]"'):
            pushed(packed)

    def test_a_client_that_cannot_be_run_is_named(self, packed, kaggle, tmp_path):
        kaggle()
        (tmp_path / "bin" / "kaggle").write_text("#!/nowhere/python\n")
        with pytest.raises(OutputError, match="kaggle: cannot be run"):
            pushed(packed)

    @pytest.mark.parametrize("name", ["KAGGLE_KEY", "KAGGLE_API_TOKEN"])
    def test_a_token_is_never_shown(self, packed, kaggle, monkeypatch, name):
        monkeypatch.setenv(name, "KGAT_0123456789")
        kaggle(datasets_status=[(1, "", "Error: token KGAT_0123456789 is odd")])
        with pytest.raises(OutputError, match=r"token \*\*\* is odd"):
            pushed(packed)


class TestBeforeAnythingIsUploaded:
    @pytest.fixture(autouse=True)
    def _client(self, kaggle, tmp_path):
        kaggle()
        yield
        assert not (tmp_path / "bin" / "asked.jsonl").exists()

    @pytest.mark.parametrize(
        ("damage", "kind", "words"),
        [
            (lambda dataset: (dataset / "graphs").mkdir(), ConfigError, "graphs: is a folder: Kaggle's client leaves"),
            (lambda dataset: (dataset / "fold1.onnx").unlink(), BundleError, "fold1.onnx: is missing from the bundle"),
            (
                lambda dataset: write_wheel(dataset, "msgspec-0.20", "cp311-cp311-manylinux_2_28_x86_64"),
                ConfigError,
                "is for Python 3.11, Kaggle runs 3.12 - pack again with --download",
            ),
            (
                lambda dataset: next(dataset.glob("birdinfer-*")).unlink(),
                InputNotFoundError,
                "holds no wheel of birdinfer - pack again",
            ),
            (lambda dataset: (dataset / "dataset-metadata.json").unlink(), InputNotFoundError, "is missing"),
        ],
    )
    def test_what_would_not_run_is_refused(self, packed, damage, kind, words):
        damage(packed / "dataset")
        with pytest.raises(kind, match=words):
            pushed(packed)

    def test_a_folder_that_is_no_submission_is_refused(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="birdinfer kaggle pack makes it"):
            check_packed(tmp_path)


class TestCommands:
    def test_can_be_typed_into_a_shell(self, packed):
        listed = push_commands(PushSettings(packed=packed, message="it's mine"))
        split = [shlex.split(command) for command, _ in listed]
        assert all(words[0] == "kaggle" for words in split)
        assert split[1] == [
            *("kaggle", "datasets", "version", "--path", str(packed / "dataset")),
            *("--message", "it's mine", "--keep-tabular"),
        ]
        message = with_origin("it's mine", origin_of(packed))
        assert split[-1][-5:] == [KERNEL, "--version", "VERSION", "--message", message]

    def test_are_not_shown_for_what_would_not_run(self, packed):
        (packed / "dataset" / "graphs").mkdir()
        with pytest.raises(BirdinferError, match="is a folder"):
            push_commands(PushSettings(packed=packed))

    def test_need_no_client(self, packed, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert len(push_commands(PushSettings(packed=packed))) == 6


class TestOrigin:
    def test_is_run_epoch_and_a_digest_of_what_was_packed(self, packed):
        manifest = packed / "dataset" / "manifest.json"
        before = origin_of(packed)
        assert (before.run, before.epoch) == (json.loads(manifest.read_text())["provenance"]["run"], None)
        facts = json.loads(manifest.read_text())
        facts["provenance"]["epoch"] = 7
        manifest.write_text(json.dumps(facts))
        after = origin_of(packed)
        assert (after.run, after.epoch) == (before.run, 7)
        assert after.pack != before.pack
        assert read_origin(with_origin("a [b] try", after)) == ("a [b] try", after)

    def test_other_options_of_the_notebook_are_another_pack(self, packed):
        before = origin_of(packed)
        script = next((packed / "kernel").glob("*.py"))
        script.write_text(script.read_text() + "# --overlap 2.5")
        assert origin_of(packed).pack != before.pack
