"""The configuration of a script: YAML composed by hydra, overridden, validated before the script runs, its comments as help.

    # Hours of speech to make.        <- explains the key below it
    hours: 1.0                        <- the default, and so the type
    out: ???  # (path) Folder.        <- required; its type, and a short explanation
    llm: {}                           <- open: any key may be given below it
    loader:  # (keys) Of a library.   <- open too, with defaults
    seed: null                        <- any type, unless the explanation begins with one
    most: 3  # null: all              <- null is possible where the explanation says what it means

A key that no YAML of ours has is an error, wherever it comes from: nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from nemo_duplex.inputs import InputError, at_home, did_you_mean, one_line
from nemo_duplex.scripts.values import REQUIRED, KeyType, Unquoted, as_typed, plain_tree, yaml_tree


@dataclass(frozen=True)
class Key:
    """A key of a YAML file.

    Attributes:
        name: dotted.
        explanation: the comment, without the type that it may begin with; "" if there is none.
        type: of its value.
        is_open: whether any key may be given below it.
        given: its value in the file, as `KeyType.convert` reads it.
        place: file and line.
    """

    name: str
    explanation: str
    type: KeyType
    is_open: bool
    given: Any
    place: str


def conf_folder() -> Path:
    """The YAML files of the scripts: `conf/` of the checkout, or `nemo_duplex/conf` where a wheel was installed."""
    package = Path(__file__).parents[1]
    in_checkout = (package.parent / "setup.py").is_file()
    return package.parent / "conf" if in_checkout else package / "conf"


def load(name: str, overrides: Sequence[str] = (), folder: str | Path | None = None) -> DictConfig:
    """The configuration `name`, overridden, with every required key given and every interpolation resolved.

    Args:
        name: a YAML file, without suffix.
        overrides: `key=value` in hydra's notation for values; `group=option` chooses the file of a group.
        folder: looked in before `conf_folder()`; its files may only set keys that ours know.

    Raises:
        InputError: for an unknown file or key (naming the nearest), a value of the wrong type, a required key not given.
    """
    return ScriptConfig(name, overrides, folder).checked()


class ScriptConfig:
    """The configuration `name` before it is complete; arguments and errors as for `load`.

    Attributes:
        values: the composed values, overrides applied.
        keys: what our YAML files say of each key, by dotted name; mappings have an entry of their own.
        groups: the option chosen for each group of the defaults lists.
    """

    def __init__(self, name: str, overrides: Sequence[str] = (), folder: str | Path | None = None) -> None:
        self._folders = [conf_folder()]
        own = conf_folder().resolve() if folder is None else Path(at_home(str(folder), "--config-dir")).resolve()
        if own != conf_folder().resolve():
            if not own.is_dir():
                raise InputError(f"--config-dir: there is no folder {own}.")
            self._folders.insert(0, own)
        self.keys: dict[str, Key] = {}
        self.groups: dict[str, str] = {}
        self._foreign: list[Key] = []
        self._required: set[str] = set()

        pairs = [_split(override) for override in overrides]
        self._read(name, "", dict(pairs))
        self._check_foreign()
        self.values = self._compose(name, [f"{key}={value}" for key, value in pairs if key in self.groups])
        for key in self._required:
            if self._value(key) is None and key not in {own.name for own in self._foreign}:
                self._update(key, REQUIRED)  # hydra keeps the null of an included file when the including one says ???
        self._convert_foreign()
        for key, text in pairs:
            if key not in self.groups:
                self._require_known(key)
                self._set(key, self._type(key).read(text))

    def checked(self) -> DictConfig:
        """The values, every one of them given and resolved."""
        missing = [key for key, value in self.leaves() if value == REQUIRED]
        if missing:
            named = "; ".join(f"{key} ({self.explanation(key).rstrip('.') or 'required'})" for key in missing)
            raise InputError(f"Not given: {named}. Add {' '.join(f'{key}=...' for key in missing)}")
        interpolated = [key for key, value in self.leaves() if isinstance(value, str) and "${" in value]
        for key in interpolated:
            if "\\${" in self._value(key):  # OmegaConf unescapes it once, then takes it for another key
                raise InputError(f"{key}={self._value(key)}: '${{' stands for another value. Choose a text without it.")
        try:
            OmegaConf.resolve(self.values)
        except InterpolationKeyError as error:
            cure = "${NAME} stands for another key, ${oc.env:NAME} for a variable of the environment."
            raise InputError(f"Configuration: {one_line(error, 400)}. {cure}") from error
        except OmegaConfBaseException as error:
            raise InputError(f"Configuration: {one_line(error, 400).split(' full_key:')[0]}.") from error
        for key in interpolated:
            self._convert_resolved(key)
        for key, value in list(self.leaves()):
            if (path := self._type(key).with_home(key, value)) != value:
                self._update(key, path)
        return self.values

    def explanation(self, key: str) -> str:
        """What the YAML says of `key`; "" if it says nothing."""
        return self.keys[key].explanation if key in self.keys else ""

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Dotted name and unresolved value of every key that is not a mapping of further ones, in order."""
        return _leaves(OmegaConf.to_container(self.values, resolve=False), "")

    # --- the files ---------------------------------------------------------------------------------------------------

    def _read(self, name: str, package: str, choices: dict[str, str], referrer: str = "") -> None:
        """Collects the keys of one file, then of the files that its defaults list includes."""
        path = self._find(name, referrer)
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            includes = OmegaConf.load(path).get("defaults") or [] if isinstance(root, yaml.MappingNode) else []
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not readable as YAML: {one_line(error, 400)}") from error
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}: expected 'key: value' lines, found none.")
        ours = conf_folder() in path.parents
        for key in _keys_of(root, package, path):
            if key.name == "defaults":
                continue
            if not ours:
                self._foreign.append(key)
                continue
            if key.name not in self.keys and plain_tree(key.given) == REQUIRED:
                self._required.add(key.name)
            if key.name not in self.keys or not self.keys[key.name].explanation:
                self.keys[key.name] = key
        overrides = [(str(key), option) for i in includes if not isinstance(i, str) for key, option in i.items()]
        chosen = {key.split()[-1].lstrip("/"): option for key, option in overrides if key.startswith("override ")}
        choices = {**chosen, **choices}
        for include in includes:
            if include == "_self_":
                continue
            if isinstance(include, str):
                self._read(include.lstrip("/"), package, choices, f"{path}: ")
                continue
            for group, option in include.items():
                if str(group).startswith("override "):  # of a group that an included file names
                    continue
                group = str(group).lstrip("/")
                self.groups.setdefault(group, choices.get(group, option))
                self._read(f"{group}/{self.groups[group]}", group.replace("/", "."), choices, f"{path}: ")

    def _find(self, name: str, referrer: str) -> Path:
        for folder in self._folders:
            if (path := folder / f"{name}.yaml").is_file():
                return path
        parents = {Path(name).parent for _ in self._folders}
        known = sorted(
            (parent / p.stem).as_posix() for f in self._folders for parent in parents for p in (f / parent).glob("*.yaml")
        )
        raise InputError(
            f"{referrer}There is no configuration {name!r}.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}."
        )

    def _compose(self, name: str, choices: list[str]) -> DictConfig:
        further = [f"hydra.searchpath=[{','.join(f'file://{f}' for f in self._folders[1:])}]"] if self._folders[1:] else []
        try:
            with initialize_config_dir(config_dir=str(self._folders[0]), version_base="1.3"):
                return compose(config_name=name, overrides=choices + further)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise InputError(f"Configuration {name}: {one_line(error, 400)}") from error

    def _check_foreign(self) -> None:
        for key in self._foreign:
            if not self._is_known(key.name):
                advice = (
                    did_you_mean(key.name, self.keys) or " Its defaults list must name the configuration that it builds on."
                )
                raise InputError(f"{key.place}: unknown key {key.name!r}.{advice}")

    def _convert_foreign(self) -> None:
        """Gives what the user's own files say the types of our keys: text where a key is text (`out: 007`)."""
        for key in reversed(self._foreign):
            value = plain_tree(key.given)
            is_section = isinstance(value, dict) and isinstance(self.keys.get(key.name, key).given, dict)
            if not is_section and repr(value) == repr(self._value(key.name)):
                try:
                    self._set(key.name, key.given)
                except InputError as error:
                    raise InputError(f"{key.place}: {error}") from error

    # --- overrides ---------------------------------------------------------------------------------------------------

    def _is_known(self, key: str) -> bool:
        parts = key.split(".")
        parents = (".".join(parts[:n]) for n in range(1, len(parts)))
        return key in self.keys or any(parent in self.keys and self.keys[parent].is_open for parent in parents)

    def _require_known(self, key: str) -> None:
        if not self._is_known(key):
            raise InputError(f"Unknown key {key!r}.{did_you_mean(key, self.keys)} --help explains every key.")

    def _convert_resolved(self, key: str) -> None:
        """Gives what an interpolation stands for the type of its key: `${oc.env:HOURS}` is text."""
        value, type_ = self._value(key), self._type(key)
        if type_.kind != "any" and value is not None:
            self._set(key, type_.read(value) if isinstance(value, str) else Unquoted(as_typed(value), value))

    def _type(self, key: str) -> KeyType:
        return self.keys[key].type if key in self.keys else KeyType()

    def _value(self, key: str) -> Any:
        node: Any = OmegaConf.to_container(self.values, resolve=False)
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def _set(self, key: str, given: Any) -> None:
        if isinstance(given, dict) and isinstance(self._value(key), dict) and self._type(key).kind in ("keys", "any"):
            for name, item in given.items():
                self._require_known(f"{key}.{name}")
                if "." in str(name):  # a path, say: no section of sections
                    section = OmegaConf.select(self.values, key)
                    with open_dict(section):
                        section[str(name)] = plain_tree(item)
                else:
                    self._set(f"{key}.{name}", item)
            return
        self._update(key, self._type(key).convert(key, given))

    def _update(self, key: str, value: Any) -> None:
        try:
            OmegaConf.update(self.values, key, value, merge=False, force_add=True)
        except OmegaConfBaseException as error:
            said = one_line(error, 400).split(" full_key:")[0]
            raise InputError(f"{key}={value}: '${{' stands for another value ({said}). Choose a text without it.") from error


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"{override!r} is not key=value.")
    if key.startswith(("+", "~")):
        raise InputError(f"{override!r}: keys are neither added nor removed, only set: key=value.")
    return key, value


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _keys_of(node: yaml.MappingNode, package: str, path: Path, lines: Sequence[str] | None = None) -> Iterator[Key]:
    lines = path.read_text(encoding="utf-8").splitlines() if lines is None else lines
    for key, value in node.value:
        name = f"{package}.{key.value}" if package else str(key.value)
        given = yaml_tree(value)
        type_, explanation = KeyType.of(plain_tree(given), comment := _explanation(lines, key, value))
        is_open = given == {} or comment.startswith("(keys)")
        yield Key(name, explanation, type_, is_open, given, f"{path}, line {key.start_mark.line + 1}")
        if isinstance(value, yaml.MappingNode):
            yield from _keys_of(value, name, path, lines)


def _explanation(lines: Sequence[str], key: yaml.Node, value: yaml.Node) -> str:
    """The comment beside a key; without one, the comment lines directly above it."""
    row = key.start_mark.line
    block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    end = key.end_mark if block else value.end_mark
    if not block and end.line == row or block:
        beside = lines[row][end.column :].lstrip(" :,")
        if beside.startswith("#"):
            return beside.lstrip("# ").rstrip()
    above: list[str] = []
    while row > 0 and (line := lines[row - 1].strip()).startswith("#") and not line.startswith("# ---"):
        above.insert(0, line.lstrip("# "))
        row -= 1
    return " ".join(above)
