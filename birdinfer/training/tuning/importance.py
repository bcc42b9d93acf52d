"""Which searched keys the score hangs on, as shares that sum to 1.

PED-ANOVA (Watanabe 2023, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces"): how
much the best trials' values of a key lie otherwise than all trials'. It needs neither a model nor scikit-learn.
"""

import math
import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from birdinfer.training.tuning.records import TrialRecord
from birdinfer.training.tuning.values import cell

FEWEST_TRIALS = 4
_BEST_SHARE, _MOST_SHARE, _BEST_TRIALS = 0.1, 0.5, 5
"""The best tenth is held against all; of few trials the best five, or half."""


def importance_of(study: optuna.Study, records: Sequence[TrialRecord], keys: Sequence[str]) -> dict[str, float]:
    """Each key's share, the largest first; 0 for a key that never had a second value.

    Returns:
        Shares that sum to 1; empty for too few complete trials, or where all scores, or all values, are equal.
    """
    complete = [record for record in records if record.score is not None]
    varied = [key for key in keys if len({cell(record.values[key]) for record in complete}) > 1]
    if len(complete) < FEWEST_TRIALS or not varied or len({record.score for record in complete}) < 2:
        return {}
    share = min(_MOST_SHARE, max(_BEST_SHARE, _BEST_TRIALS / len(complete)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study, params=varied)
    total = math.fsum(found.values())
    if not total > 0 or not math.isfinite(total):
        return {}
    shares = {key: found.get(key, 0.0) / total for key in keys}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
