"""A predictor with a number of workers, and results by file name, for tests of many files."""

from birdinfer import Bundle, Predictor
from birdinfer.inference.predictor import make_plan


def with_workers(bundle, workers, engine="onnxruntime"):
    return Predictor(Bundle.load(bundle), make_plan(engine, workers))


def by_name(results):
    return {result.path.name: result for result in results}
