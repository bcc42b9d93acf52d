import msgspec
import pytest

from birdinfer import Bundle
from birdinfer.config import PostConfig
from birdinfer.engines import parse_spec
from birdinfer.postprocess.priors import PriorShift
from birdinfer.run_identity import RunIdentity

RUN = RunIdentity("abc", "", "onnxruntime:fp32", "1.0", "0.1")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bundle_sha256": "abd", "engine": "cuda:fp32"}, "another bundle, or with other options"),
        ({"tables_sha256": "d"}, "another bundle, or with other options"),
        ({"engine": "cuda:fp32", "engine_version": "1.1"}, "another engine: onnxruntime:fp32, now cuda:fp32"),
        ({"engine_version": "1.1", "birdinfer_version": "0.2"}, "another version of the engine: 1.0, now 1.1"),
        ({"birdinfer_version": "0.2"}, "another birdinfer: 0.1, now 0.2"),
    ],
)
def test_what_differs_first_is_told(changes, told):
    assert RUN.difference(msgspec.structs.replace(RUN, **changes)) == f"holds a run of {told}"


def test_a_run_is_another_one_when_a_table_of_its_steps_has_changed(bundle, tmp_path):
    loaded, table = Bundle.load(bundle), tmp_path / "prior.csv"
    with_prior = loaded.with_scoring(loaded.manifest.blend, PostConfig(steps=(PriorShift(table=str(table)),)))
    identities = []
    for content in ("site,hour", "site,hour,windows"):
        table.write_text(content)
        identities.append(RunIdentity.of(with_prior, parse_spec("onnxruntime")))
    table.unlink()
    identities.append(RunIdentity.of(with_prior, parse_spec("onnxruntime")))
    assert len(set(identities)) == 3
    assert RunIdentity.of(loaded, parse_spec("onnxruntime")).engine_version
