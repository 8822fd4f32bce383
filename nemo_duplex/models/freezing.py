"""Which parameters are trained: patterns over their names, ours or those of NeMo's in-tree model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.names import in_tree_name


def freeze(model: nn.Module, patterns: Sequence[str], exceptions: Sequence[str] = ()) -> None:
    """Freezes the parameters that a pattern of `patterns` matches and none of `exceptions`.

    Args:
        patterns, exceptions: regular expressions, matched from the start of a parameter's name (`re.match`).

    Raises:
        InputError: for a pattern that is no regular expression, or matches nothing: it would freeze what it was not meant to.
    """
    names = {name: (name, in_tree_name(name)) for name, _ in model.named_parameters()}
    frozen = [_compiled(pattern, names) for pattern in patterns]
    kept = [_compiled(pattern, names) for pattern in exceptions]
    for name, parameter in model.named_parameters():
        if any(p.match(n) for p in frozen for n in names[name]) and not any(p.match(n) for p in kept for n in names[name]):
            parameter.requires_grad_(False)


def _compiled(pattern: str, names: dict[str, tuple[str, str]]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"freeze_params: {pattern!r} is no regular expression ({error}).") from error
    if not any(compiled.match(name) for pair in names.values() for name in pair):
        parts = sorted({name.split(".")[0] for pair in names.values() for name in pair})
        raise InputError(f"freeze_params: {pattern!r} matches no parameter. Names begin with {', '.join(parts)}.")
    return compiled
