"""The rules of a year's submission file, a room a rule: what Kaggle would not score is found before it is sent."""

from birdinfer.submission_rules.check import Report, check_submission
from birdinfer.submission_rules.findings import RULES, Finding, Kind, Verdict

__all__ = ["RULES", "Finding", "Kind", "Report", "Verdict", "check_submission"]
