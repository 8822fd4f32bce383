"""Which type a key has, and the value that text on the command line or in a YAML file stands for.

The type of a key is that of its default. Where the default does not tell (`???`, `null`, `[]`, a text that is a path), the
explanation begins with it:

    codec: null   # (path) agent codec .nemo                 path: text; ~ is the home folder
    limit: null   # (positive whole number) at most so many; null: all
    dropout: 0.1  # (share) a number from 0 to 1
    seed: 0       # (whole number from 0) of the weights
    source: []    # (paths) files of dialogues
    limit: 3      # (whole number or share) batches, or 0.0 to 1.0: the share of all

`null` is possible where it is the default or the explanation says what it means ("null: all"); where the default is an empty
list or mapping, it stands for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import create_functions
from hydra.core.override_parser.overrides_visitor import HydraErrorListener, HydraOverrideVisitor
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import CommonTokenStream, InputStream, OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError, at_home

REQUIRED = "???"
_EITHER = "whole number or share"
_KINDS = ("path", "text", "number", "whole number", _EITHER, "true or false", "keys", "any type")
_PLURALS = {"paths": "path", "texts": "text", "numbers": "number", "whole numbers": "whole number"}
_RANGES = {"share": (0, 1), "positive": (math.ulp(0.0), math.inf), "from 0": (0, math.inf)}
_MARK = re.compile(rf"^\((?:(share)|(positive )?({'|'.join([*_KINDS, *_PLURALS])})( from 0)?)\) *")
_OF_DEFAULT = {bool: "true or false", int: "whole number", float: "number", str: "text", dict: "keys"}


@dataclass(frozen=True)
class Unquoted:
    """A scalar without quotes: what was typed (`007`, `1e5`, `true`), and what hydra or YAML make of it."""

    text: str
    value: Any

    @property
    def decimal(self) -> Any:
        """`value`, but the text of a number that is not decimal, which YAML 1.1 knows: 010 are 8, 1:30 are 90, 0x10 are 16."""
        if type(self.value) not in (int, float) or self.value != self.value or self.value in (math.inf, -math.inf):
            return self.value
        try:
            return self.value if type(self.value)(self.text) == self.value else self.text
        except ValueError:
            return self.text


@dataclass(frozen=True)
class KeyType:
    """The type of a key.

    Attributes:
        kind: "path", "text", "number", "whole number", "whole number or share", "true or false", "keys" (a mapping), or "any".
        is_list: whether it is a list of these.
        null: whether it may be null.
        default: the default, for messages.
        range: of numbers: "share" (0 to 1), "positive", "from 0", or "" for any.
    """

    kind: str = "any"
    is_list: bool = False
    null: bool = True
    default: Any = None
    range: str = ""

    @classmethod
    def of(cls, default: Any, explanation: str) -> tuple[KeyType, str]:
        """The type of a key with this default and explanation, and the explanation without the type that it begins with."""
        null = default is None or "null:" in explanation
        if mark := _MARK.match(explanation):
            share, positive, name, from_0 = mark.groups()
            name, range_ = (name or "number").removesuffix(" type"), (share or positive or from_0 or "").strip()
            return cls(_PLURALS.get(name, name), name in _PLURALS, null, default, range_), explanation[mark.end() :]
        if default == REQUIRED:
            return cls("text", False, null, default), explanation
        if default is None or (isinstance(default, str) and "${" in default):
            return cls(default=default), explanation
        if isinstance(default, list):
            kinds = {_OF_DEFAULT.get(type(item), "any") for item in default}
            kind = kinds.pop() if len(kinds) == 1 else "any"
            return cls("any" if kind == "keys" else kind, True, null, default), explanation
        return cls(_OF_DEFAULT[type(default)], False, null, default), explanation

    @property
    def name(self) -> str:
        """What is expected, as in the explanations."""
        plurals = {kind: plural for plural, kind in _PLURALS.items()}
        return self._ranged(plurals.get(self.kind, "list") if self.is_list else self.kind)

    def _ranged(self, kind: str) -> str:
        return {"positive": f"positive {kind}", "from 0": f"{kind} from 0", "share": "share"}.get(self.range, kind)

    @property
    def note(self) -> str:
        """The name of the type for --help, where the default does not tell it; else ""."""
        untold = self.kind in ("path", _EITHER) or self.range or self.default in (None, REQUIRED, [])
        return self.name if untold and self.kind != "any" else ""

    def read(self, text: str) -> Any:
        """The tree that `text` on the command line stands for: `Unquoted` scalars, quoted texts, lists and mappings.

        Where text is expected it is taken as it is: paths hold blanks, '=', ',' and brackets.
        """
        if self.kind not in ("path", "text"):
            return _parsed(text)
        if self.is_list and text.startswith("[") and text.endswith("]"):
            return [_scalar(item) for item in _split(text[1:-1])]
        return _scalar(text)

    def convert(self, key: str, given: Any) -> Any:
        """`given`, a tree as `read` or `yaml_tree` give it, as plain data of this type.

        A single value where a list is expected becomes a list of one. Texts with an interpolation (`${...}`) have any type.

        Raises:
            InputError: if it has another type.
        """
        if given is None or isinstance(given, Unquoted) and given.value is None:
            if self.default in ([], {}):
                return self.default
            if self.null:
                return None
        if self.is_list and not _is_open(given):
            return [self._one(key, item) for item in (given if isinstance(given, list) else [given])]
        return self._one(key, given)

    def _one(self, key: str, given: Any) -> Any:
        value = given.decimal if isinstance(given, Unquoted) else given
        is_text = self.kind in ("path", "text")
        if self.kind == "any" or _is_open(given) or (self.is_list and isinstance(given, list) and not is_text):
            return plain_tree(given)
        if is_text:
            text = given.text if isinstance(given, Unquoted) else given
            if isinstance(text, str) and (self.kind == "text" or text.strip()):
                return text
        elif self.kind == "true or false" and isinstance(value, bool):
            return value
        elif self.kind == "whole number" and type(value) is int and self._within(value):
            return value
        elif self.kind == _EITHER and (type(value) is int and value >= 0 or type(value) is float and 0 <= value <= 1):
            return value
        elif self.kind == "number" and type(value) in (int, float) and self._within(value) and math.isfinite(value):
            return float(value)
        elif self.kind == "keys" and isinstance(value, dict):
            return plain_tree(value)
        finite = "a finite number" if isinstance(value, float) and not math.isfinite(value) else ""
        raise InputError(f"{key}={_shown(given)}: expected {finite or self._expected()}.")

    def _within(self, value: float) -> bool:
        lowest, highest = _RANGES.get(self.range, (-math.inf, math.inf))
        return lowest <= value <= highest

    def _expected(self) -> str:
        """What is expected, with an example."""
        words = {"text": "text", "keys": "keys below it", "true or false": "true or false"}
        words[_EITHER] = "a whole number from 0, or a share from 0.0 to 1.0,"
        kind = words.get(self.kind, f"a {self._ranged(self.kind)}{', 0 to 1' if self.range == 'share' else ''}")
        no_example = self.default in (None, REQUIRED, []) or self.kind == "keys"
        default = "" if no_example else f", such as the default {as_typed(self.default)}"
        return (f"a list, each item {kind}" if self.is_list else kind) + (" or null" if self.null else "") + default

    def with_home(self, key: str, value: Any) -> Any:
        """`value` with the home folder for `~`: in a path, and where no type is known in every text that begins with `~/`."""
        if self.kind == "path":
            return _each_text(value, lambda text: at_home(text, key))
        if self.kind in ("any", "keys"):
            return _each_text(value, lambda text: at_home(text, key) if text.startswith("~/") else text)
        return value


def yaml_tree(node: yaml.Node) -> Any:
    """The value of a YAML node as `KeyType.convert` reads it; dates are text, as for hydra."""
    if isinstance(node, yaml.MappingNode):
        return {str(_constructed(key)): yaml_tree(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [yaml_tree(item) for item in node.value]
    value = _constructed(node)
    return value if value is None or isinstance(value, str) else Unquoted(node.value, value)


def as_typed(value: Any) -> str:
    """A value as one would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(as_typed(item) for item in value)}]"
    return str(value)


def _constructed(node: yaml.Node) -> Any:
    """What hydra makes of a scalar, which loads YAML by OmegaConf: YAML 1.1 takes 1e5 for text and 2026-11-28 for a date."""
    if getattr(node, "style", None) is not None:  # between quotes
        return node.value
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {node.value}"), resolve=False)["value"]
    except yaml.YAMLError:  # a lone '='
        return node.value


class _Visitor(HydraOverrideVisitor):
    """Hydra's reading of a value, that keeps the text of unquoted scalars."""

    def visitPrimitive(self, ctx: OverrideParser.PrimitiveContext) -> Any:
        value = super().visitPrimitive(ctx)
        return value if isinstance(value, (str, QuotedString)) else Unquoted(ctx.getText().strip(), value)

    def visitFunction(self, ctx: OverrideParser.FunctionContext) -> Any:
        return HydraOverrideVisitor(self.functions).visitFunction(ctx)


def _parsed(text: str) -> Any:
    """`text` in hydra's notation for values; as it is where that has no meaning for it, or means several values."""
    lexer = OverrideLexer(InputStream(f"key={text}"))
    parser = OverrideParser(CommonTokenStream(lexer))
    for reader in (lexer, parser):
        reader.removeErrorListeners()
        reader.addErrorListener(HydraErrorListener())
    try:
        override = _Visitor(create_functions()).visit(parser.override())
    except HydraException:
        return _parsed_as_yaml(text)
    return text if override.is_sweep_override() else override.value()


def _parsed_as_yaml(text: str) -> Any:
    """A list or a mapping as YAML writes it; hydra allows fewer characters in unquoted texts (`{path: ~/x}`)."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    return yaml_tree(node) if isinstance(node, yaml.CollectionNode) and node.flow_style else text


def _scalar(text: str) -> Any:
    """A text as it is, or what is between quotes; unquoted `null` may mean null."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        inner = _parsed(text)
        return inner if isinstance(inner, str) else text
    return Unquoted("null", None) if text == "null" else text


def _split(items: str) -> Iterator[str]:
    """The items between the brackets of a list: apart by commas that are not within quotes."""
    found = re.findall(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*?)\s*(?:,|$)""", items)
    return iter(found[:-1] if not found[-1] else found)


def _is_open(given: Any) -> bool:
    """Whether a value is not known yet."""
    return isinstance(given, str) and (given == REQUIRED or "${" in given)


def plain_tree(given: Any) -> Any:
    """A tree with what hydra or YAML make of its unquoted scalars."""
    if isinstance(given, dict):
        return {(key.text if isinstance(key, Unquoted) else key): plain_tree(value) for key, value in given.items()}
    if isinstance(given, list):
        return [plain_tree(item) for item in given]
    return given.value if isinstance(given, Unquoted) else given


def _shown(given: Any) -> str:
    if isinstance(given, str) and isinstance(_parsed(given), Unquoted):  # between quotes, or it would be no text
        return f"'{given}'"
    return given.text if isinstance(given, Unquoted) else as_typed(plain_tree(given))


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
