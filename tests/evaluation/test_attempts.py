from birdinfer.evaluation.ablation import ALL_STEPS, each_alone, pipeline_parts, standard_steps
from birdinfer.postprocess.smoothing import LocalMax, Smooth
from birdinfer.postprocess.steps import catalogue, parse_steps
from birdinfer.species import Species

SPECIES = (
    Species("a", "Parus major", class_name="Aves"),
    Species("b", "Parus ater", class_name="Aves"),
    Species("c", "Hyla arborea", class_name="Amphibia"),
    Species("d", "Gryllus campestris", class_name="Insecta"),
)


class TestStandardSteps:
    def test_standard_steps_try_or_list_every_kind(self):
        standard = standard_steps(SPECIES)
        tried = {str(type(step).__struct_config__.tag) for step in standard.steps}
        left_out = {line.partition(":")[0] for line in standard.left_out}
        assert tried | left_out == set(catalogue())
        assert {"smooth", "taxon_kernels", "file_max"} <= tried

    def test_kernels_of_winners_are_among_them(self):
        kernels = {step.kernel for step in standard_steps(SPECIES).steps if isinstance(step, Smooth)}
        assert {(0.2, 0.6, 0.2), (0.1, 0.8, 0.1), (0.1, 0.2, 0.4, 0.2, 0.1)} <= kernels

    def test_none_is_neutral_and_none_stands_twice(self):
        steps = standard_steps(SPECIES).steps
        assert not any(step.is_neutral for step in steps)
        assert all(steps.count(step) == 1 for step in steps)

    def test_standard_steps_list_kinds_without_default(self):
        assert "mirror_groups: has no default for groups" in standard_steps(SPECIES).left_out

    def test_what_does_not_fit_the_species_is_left_out_with_the_reason(self):
        plain = standard_steps((Species("a"), Species("b")))
        assert len(plain.steps) < len(standard_steps(SPECIES).steps)
        (line,) = (line for line in plain.left_out if line.startswith("taxon_kernels:"))
        assert "class" in line


class TestPipelineParts:
    STEPS = parse_steps(["smooth", "local_max"])

    def test_pipeline_parts_are_alone_last_and_whole(self):
        smooth, local_max = Smooth(), LocalMax()
        whole = (smooth, local_max)
        assert [tuple(each) for each in pipeline_parts(self.STEPS)] == [
            ("smooth", "alone", (smooth,), ()),
            ("local_max", "alone", (local_max,), ()),
            ("smooth", "last", whole, (local_max,)),
            ("local_max", "last", whole, (smooth,)),
            (ALL_STEPS, "whole", whole, ()),
        ]

    def test_a_single_step_is_tried_once(self):
        assert pipeline_parts(self.STEPS[:1]) == each_alone(self.STEPS[:1])

    def test_a_step_that_stands_twice_is_taken_out_one_place_at_a_time(self):
        attempts = pipeline_parts(self.STEPS[:1] * 2)
        assert [each.how for each in attempts] == ["alone", "last", "last", "whole"]
        assert {each.without for each in attempts if each.how == "last"} == {(Smooth(),)}
