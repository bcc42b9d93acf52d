"""What tests of many files share: a predictor on so many lanes, and results by the files' names."""

from birdinfer import Bundle, Predictor
from birdinfer.predictor import make_plan


def with_lanes(bundle, lanes, engine="onnxruntime"):
    return Predictor(Bundle.load(bundle), make_plan(engine, lanes))


def by_name(results):
    return {result.path.name: result for result in results}
