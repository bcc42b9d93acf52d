"""How steps are written, and what is said of those that are written badly."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.postprocess.calibration import HistogramMatch, Temperature
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import CutOff, FileBoost, FileContrast, FileMax, FileTopMean, LowRankPower
from birdinfer.postprocess.priors import PriorShift
from birdinfer.postprocess.smoothing import AdaptiveSmooth, FatTail, GaussianSmooth, LocalMax, Smooth, TaxonKernels
from birdinfer.postprocess.steps import AnyStep, catalogue, parse_step, parse_steps, summaries, write_step
from birdinfer.postprocess.taxonomy import GenusSmooth, MirrorGroups
from birdinfer.species import Species

halves = st.lists(st.floats(0.01, 1), min_size=1, max_size=4)
kernels = halves.map(lambda half: tuple(weight / (2 * sum(half) - half[-1]) for weight in (*half, *half[-2::-1])))
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
any_step = st.one_of(
    st.builds(Smooth, kernels),
    st.builds(GaussianSmooth, st.floats(0, 25), st.floats(1, 4)),
    st.builds(FatTail, st.floats(0.05, 100), st.integers(0, 100)),
    st.builds(AdaptiveSmooth, st.floats(0, 0.5)),
    st.builds(LocalMax, st.floats(0, 1), st.integers(0, 100)),
    st.builds(TaxonKernels, st.dictionaries(names, kernels, max_size=3), kernels),
    st.builds(FileMax, st.floats(0, 10)),
    st.builds(FileTopMean, st.integers(1, 1000), st.floats(0, 10)),
    st.builds(FileBoost, st.floats(0, 20)),
    st.builds(FileContrast, st.floats(0, 10)),
    st.builds(CutOff, st.floats(0, 1), st.floats(0, 1)),
    st.builds(LowRankPower, st.integers(1, 100_000), st.floats(1, 10)),
    st.builds(GenusSmooth, st.floats(0, 1), st.sampled_from(["mean", "max"])),
    st.builds(
        MirrorGroups, share=st.floats(0, 1), groups=st.lists(st.lists(names, min_size=2), max_size=3).map(
            lambda groups: tuple(tuple(f"{index}{label}{place}" for place, label in enumerate(group))
                                 for index, group in enumerate(groups))
        )
    ),
    st.builds(Temperature, st.floats(0.01, 100), st.dictionaries(names, st.floats(0.01, 100), max_size=3)),
    st.builds(HistogramMatch, table=names, share=st.floats(0, 1)),
    st.builds(PriorShift, table=names, site_strength=st.floats(0, 2), hour_radius=st.integers(0, 11)),
)  # fmt: skip


@given(any_step)
def test_what_is_written_reads_back_equal(step):
    assert parse_step(write_step(step)) == step


@given(any_step)
def test_a_manifest_keeps_steps(step):
    post = PostConfig((1.0,), (step, Smooth()))
    assert msgspec.json.decode(msgspec.json.encode(post), type=PostConfig) == post


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("smooth", Smooth()),
        (" smooth:kernel=0.25/0.5/0.25 ", Smooth((0.25, 0.5, 0.25))),
        ("smooth:kernel=1", Smooth((1.0,))),
        ("file_top_mean:top_rows=3,power=0.5", FileTopMean(3, 0.5)),
        ("file_top_mean:power=2", FileTopMean(2, 2.0)),
        ("taxon_kernels:kernels.Aves=0.2/0.6/0.2,otherwise=1", TaxonKernels({"Aves": (0.2, 0.6, 0.2)}, (1.0,))),
        ("mirror_groups:groups=a+0012/c+d", MirrorGroups(groups=(("a", "0012"), ("c", "d")))),
        ('{"step": "file_max", "power": 0.5}', FileMax(0.5)),
    ],
)
def test_how_a_step_is_written(text, step):
    assert parse_step(text) == step


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Smooth(), "smooth"),
        (FileTopMean(2, 0.5), "file_top_mean:power=0.5"),
        (TaxonKernels({"Aves": (1.0,)}), "taxon_kernels:kernels.Aves=1.0"),
        (MirrorGroups(groups=(("a", "b"), ("c", "d"))), "mirror_groups:groups=a+b/c+d"),
        (MirrorGroups(groups=(("a+b", "c"),)), '{"step":"mirror_groups","share":1.0,"groups":[["a+b","c"]]}'),
        (TaxonKernels({}), '{"step":"taxon_kernels","kernels":{},"otherwise":[0.2,0.6,0.2]}'),
    ],
)
def test_the_short_form_is_written_where_it_can_say_it(step, text):
    assert write_step(step) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smoth", "there is no step 'smoth' - did you mean smooth? there are smooth, gaussian_smooth,"),
        ("qqqqqqqq", "there is no step 'qqqqqqqq' - there are smooth,"),
        ("", "there is no step ''"),
        ("smooth:", "names no key behind the colon - its keys are kernel"),
        ("smooth:kernel", "'kernel' is not KEY=VALUE"),
        ("smooth:kernel=1,", "'' is not KEY=VALUE"),
        ("file_top_mean:pwer=1", "file_top_mean: there is no key 'pwer' - did you mean power? its keys are top_rows"),
        ("smooth:step=file_max", "there is no key 'step'"),
        ("smooth:kernel.x=1", "there is no key 'kernel.x'"),
        ("file_max:power=1,power=2", "'power' stands twice"),
        ("taxon_kernels:kernels.Aves=1,kernels.Aves=1", "'kernels.Aves' stands twice"),
        ("taxon_kernels:kernels=1", "'kernels' is a table - name its entry, as kernels.NAME=VALUE"),
        ("taxon_kernels:kernels.=1", "is a table - name its entry, as kernels.NAME=VALUE"),
        ("smooth:kernel=a/b", "smooth: Expected float, got str (kernel[0])"),
        ("smooth:kernel=0.5/0.5", "smooth: kernel has 2 weights, an odd number is needed"),
        ("file_max:power=nan", "power is nan, allowed are 0 to 10"),
        ("file_top_mean:top_rows=1.5", "Expected int"),
        ("genus_smooth:pool=least", "Invalid enum value 'least' (pool)"),
        ("mirror_groups", "missing required field groups"),
        ("{", "'{' is not JSON"),
        ('{"step": 3}', "a step is a table with its name as step"),
        ('{"kernel": [1]}', "a step is a table with its name as step"),
        ('{"step": "smooth", "kernle": [1]}', "there is no key 'kernle' - did you mean kernel?"),
        ('{"step": "smooth", "kernel": ["1"]}', "Expected float, got str"),
        ("{" + '"a":[' * 5000, "is not JSON"),
    ],
)
def test_parse_refuses_in_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_step(text, "--post")
    assert words in str(caught.value)
    assert str(caught.value).startswith("--post")
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"(smooth|file_max|taxon_kernels|\{)[:.=,/+\w\[\]\"{}-]*")))
def test_any_text_is_a_step_or_one_problem(text):
    problem = ""
    try:
        step = parse_step(text)
    except ConfigError as error:
        problem = str(error)
    assert len(problem.splitlines()) == 1 or parse_step(write_step(step)) == step


class TestParseSteps:
    def test_steps_and_files_of_steps_in_order(self, tmp_path):
        as_json, as_toml = tmp_path / "a.json", tmp_path / "b.TOML"
        as_json.write_text(json.dumps({"steps": [{"step": "file_max", "power": 0.5}, {"step": "local_max"}]}))
        as_toml.write_text('[[steps]]\nstep = "smooth"\nkernel = [1.0]\n')
        found = parse_steps(["file_boost", str(as_json), "cut_off:factor=0", str(as_toml)])
        assert found == (FileBoost(), FileMax(0.5), LocalMax(), CutOff(0.1, 0.0), Smooth((1.0,)))
        assert parse_steps([]) == ()

    def test_a_table_is_seen_from_where_the_command_runs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert parse_steps(["histogram_match:table=q.csv"]) == (HistogramMatch(table=str(tmp_path / "q.csv")),)
        absolute = HistogramMatch(table=str(tmp_path / "q.csv"))
        assert parse_steps([write_step(absolute)]) == (absolute,)

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("a.json", "{", "cannot be read as JSON"),
            ("a.json", "\udcff", "cannot be read as JSON"),
            ("a.json", "[" * 100_000, "cannot be read as JSON"),
            ("a.toml", "steps = = 3", "cannot be read as TOML"),
            ("a.toml", "a = " + "[" * 5000, "cannot be read as TOML"),
            ("a.json", "[]", "needed is a list called steps"),
            ("a.json", '{"steps": {}}', "needed is a list called steps"),
            ("a.json", '{"steps": [], "more": 1}', "and nothing else"),
            ("a.json", '{"steps": [{"step": "local_max"}, 3]}', "a.json: steps[1]: a step is a table"),
            ("a.json", '{"steps": [{"step": "lokal_max"}]}', "a.json: steps[0]: there is no step 'lokal_max'"),
            ("a.toml", '[[steps]]\nstep = "local_max"\nshare = 2.0\n', "steps[0]: local_max: share is 2.0"),
        ],
    )
    def test_files_that_hold_none_are_refused(self, tmp_path, name, text, words):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError) as caught:
            parse_steps([str(path)])
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["a" * 300 + ".json", "a\0.toml", "folder.json"])
    def test_names_that_no_file_can_have_are_refused(self, tmp_path, name):
        (tmp_path / "folder.json").mkdir()
        with pytest.raises(ConfigError, match="cannot be read as"):
            parse_steps([str(tmp_path / name)])

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such file of steps"):
            parse_steps([str(tmp_path / "none.json")])


def is_third(kernel):
    return kernel == pytest.approx([1 / 3] * 3, abs=1e-6)


class TestCatalogue:
    def test_names_every_kind_once(self):
        assert len(catalogue()) == len(AnyStep.__args__)
        assert catalogue()["smooth"] is Smooth

    def test_every_kind_has_a_line_that_says_what_it_does_and_how_it_is_written(self):
        lines = summaries()
        assert len(lines) == len(catalogue())
        for line, name in zip(lines, catalogue(), strict=True):
            written, _, explained = line.partition("  ")
            assert written.startswith(name)
            assert len(explained) > 20

    def test_what_a_line_shows_can_be_given(self):
        """But for what has no default; thirds come back as seven digits of them."""
        for line in summaries():
            written = line.partition("  ")[0]
            if "..." not in written:
                kind = catalogue()[written.partition(":")[0]]
                found = parse_step(written)
                assert found == kind() or (kind is TaxonKernels and is_third(found.kernels["Amphibia"]))


def test_all_steps_begin_with_the_smoothing():
    assert PostConfig().all_steps == (Smooth((0.2, 0.6, 0.2)),)
    assert PostConfig((1.0,)).all_steps == ()
    assert PostConfig((1.0,), (FileMax(),)).all_steps == (FileMax(),)
    assert PostConfig((0.25, 0.5, 0.25), (FileMax(),)).all_steps == (Smooth((0.25, 0.5, 0.25)), FileMax())


def test_bundles_from_before_there_were_steps_still_read():
    assert msgspec.json.decode(b'{"smoothing_kernel": [1]}', type=PostConfig) == PostConfig((1.0,), ())
    with pytest.raises(msgspec.ValidationError, match=r"Invalid value 'nothing' - at `\$\.steps\[0\]\.step`"):
        msgspec.json.decode(b'{"steps": [{"step": "nothing"}]}', type=PostConfig)


def test_defaults_of_tables_are_not_shared():
    first = TaxonKernels()
    first.kernels.clear()
    assert np.isclose(sum(TaxonKernels().kernels["Amphibia"]), 1)


PER_SPECIES = [kind for kind in catalogue().values() if kind.is_per_species]


@pytest.mark.parametrize("kind", PER_SPECIES)
@given(seed=st.integers(0, 2**32), kept=st.sets(st.integers(0, 99), min_size=1))
def test_scores_of_steps_that_work_per_species_do_not_depend_on_the_other_species(kind, seed, kept):
    species = tuple(Species(f"s{column}", class_name="Aves") for column in range(100))
    columns = sorted(kept)
    scores = np.random.default_rng(seed).random((9, 100), np.float32)
    whole = kind().bind(species)(scores, "a")
    part = kind().bind([species[column] for column in columns])(np.ascontiguousarray(scores[:, columns]), "a")
    np.testing.assert_array_equal(part, whole[:, columns])


def test_some_steps_work_per_species():
    assert {"smooth", "file_max"} <= {str(kind.__struct_config__.tag) for kind in PER_SPECIES}
    assert "adaptive_smooth" not in {str(kind.__struct_config__.tag) for kind in PER_SPECIES}
