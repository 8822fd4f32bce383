"""Settings of evaluations in tests."""

from nemo_duplex.evaluation.setting import EvaluationSetting


def quick(**keys):
    """A setting without judges, controls and pictures."""
    return EvaluationSetting(**({"what": "turn_taking", "control_turns": 0, "examples": 0} | keys))
