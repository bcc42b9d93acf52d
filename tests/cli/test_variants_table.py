import io

import msgspec
import pytest
from make_bundles import write_bundle
from rich.console import Console

from birdinfer import Bundle
from birdinfer.cli.export import variants_table
from birdinfer.inference.manifest import Figures, Variant

FP32 = Variant("fp32", "dynamo exporter, opset 18", Figures(16.2, 20.0, 1.0, 0.0, 0.0, 300, 60, 0.9123))
MEASURED = Figures(4.4, 34.25, 1.7125, 0.0312, 0.001, 300, 60, 0.91186, 0.00044, (-0.0003, 0.0011), 0.98765, 0.99)
INT8 = Variant("int8 static", "percentile 99.999; [3] nodes left in fp32", MEASURED)
WHY = "macro AUC falls by 0.0213, allowed is 0.002; 0.9 x the speed of fp32, needed is 1.2 x"
DYNAMIC = Variant("int8 dynamic", "", Figures(4.3, 4.0, 0.2, 0.5, 0.1, 300, 60), WHY)
NUMBERS = ("MB", "windows/s", "x fp32", "macro AUC", "fall (95 %)", "least Spearman", "largest |dp|")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two members: of the first three variants, of the second none."""
    loaded = Bundle.load(write_bundle(tmp_path_factory.mktemp("bundle") / "b")).manifest
    first, *others = loaded.members
    measured = msgspec.structs.replace(first, variants=(FP32, INT8, DYNAMIC))
    return msgspec.structs.replace(loaded, members=(measured, *others))


def rows_of(manifest):
    """Cells by heading, a dictionary a line."""
    columns = variants_table(manifest).columns
    rows = zip(*(column.cells for column in columns), strict=True)
    return [dict(zip([column.header for column in columns], row, strict=True)) for row in rows]


def printed(table, width):
    screen = io.StringIO()
    Console(file=screen, width=width, soft_wrap=True, highlight=False).print(table)
    return screen.getvalue()


def test_every_variant_has_a_line_with_all_its_figures(manifest):
    fp32, int8, _ = rows_of(manifest)
    assert (fp32["member"], fp32["variant"], fp32["x fp32"], fp32["macro AUC"]) == ("fold0", "fp32", "1.00", "0.9123")
    assert [int8[name] for name in NUMBERS] == [
        "4.4", "34.2", "1.71", "0.9119", "+0.0004 (-0.0003 .. +0.0011)", "0.9877", "3.1e-02",
    ]  # fmt: skip


def test_what_could_not_be_measured_is_a_dash(manifest):
    fp32, _, dynamic = rows_of(manifest)
    assert [dynamic[name] for name in NUMBERS] == ["4.3", "4.0", "0.20", "-", "-", "-", "5.0e-01"]
    assert (fp32["fall (95 %)"], dynamic["made by"]) == ("-", "-")


def test_a_fall_without_bounds_is_shown_alone(manifest):
    figures = msgspec.structs.replace(MEASURED, auc_fall_interval=None, auc_fall=-0.0012)
    member = msgspec.structs.replace(manifest.members[0], variants=(Variant("fp16", "", figures),))
    (row,) = rows_of(msgspec.structs.replace(manifest, members=(member,)))
    assert row["fall (95 %)"] == "-0.0012"


def test_the_decision_is_taken_or_the_limit_that_failed(manifest):
    lines = printed(variants_table(manifest), 400).splitlines()
    assert [line.rstrip().endswith("taken") for line in lines] == [False, True, True, False]
    assert lines[3].rstrip().endswith(WHY)


@pytest.mark.parametrize("width", [20, 80, 400])
def test_no_figure_is_cut_off_where_lines_are_short(manifest, width):
    text = printed(variants_table(manifest), width)
    assert text.count("\n") == 4
    for piece in ("least Spearman", "+0.0004 (-0.0003 .. +0.0011)", INT8.made_by, WHY):
        assert piece in text


def test_members_without_variants_have_no_line(manifest):
    bare = msgspec.structs.replace(manifest, members=manifest.members[1:])
    assert variants_table(bare).row_count == 0
    assert {row["member"] for row in rows_of(manifest)} == {"fold0"}
