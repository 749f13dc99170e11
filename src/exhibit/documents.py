"""Reads YAML files into strict models and says of each breach where it is, what was found, the rule and the remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase
from ruamel.yaml.error import YAMLError

from exhibit.errors import ExhibitError

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Url = Annotated[str, StringConstraints(pattern=r"^https://\S+$")]


class Document(BaseModel):
    """Base of every model read from YAML: unknown keys, coercions and later changes are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model], name: str) -> tuple[Model | None, list[ExhibitError]]:
    """Reads `path` as `model`; returns the model, or every breach with ``<name>:<line>`` as its subject."""
    try:
        raw = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, [ExhibitError(name, "no such file", "every platform folder to hold one", f"Create {name}.")]
    except (YAMLError, UnicodeDecodeError) as error:
        return None, [_syntax_breach(name, error)]
    try:
        return model.model_validate(_plain(raw)), []
    except ValidationError as error:
        found = [_breach(name, raw, dict(item), model) for item in error.errors(include_url=False)]
        return None, [breach for _, breach in sorted(found, key=lambda pair: pair[0])]


def plain(path: Path) -> dict[str, Any]:
    """What a YAML file of ours holds, unchecked: one whose schema somebody else checks (Helm, say).

    Raises:
        ExhibitError: it is not YAML.
    """
    try:
        return dict(_plain(YAML(typ="rt").load(path.read_text(encoding="utf-8"))) or {})
    except (YAMLError, UnicodeDecodeError) as error:
        raise _syntax_breach("/".join(path.parts[-3:]), error) from error


def _plain(node: Any) -> Any:
    """ruamel's round-trip types (which carry line numbers) as plain ones, which strict validation asks for."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _syntax_breach(name: str, error: YAMLError | UnicodeDecodeError) -> ExhibitError:
    mark = getattr(error, "problem_mark", None)
    where = f"{name}:{mark.line + 1}" if mark else name
    return ExhibitError(where, getattr(error, "problem", None) or str(error), "valid YAML", "Mend the syntax.")


def _breach(name: str, raw: Any, error: dict[str, Any], model: type[BaseModel]) -> tuple[int, ExhibitError]:
    location, line = _locate(raw, error["loc"])
    key = ".".join(location) or "the document"
    subject = f"{name}:{line}: {key}"
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        remedy = f"Did you mean '{close[0]}'?" if close else "Remove it."
        return line, ExhibitError(subject, f"unknown key '{location[-1]}'", f"one of {', '.join(known)}", remedy)
    if error["type"] == "missing":
        return line, ExhibitError(subject, "no such key", "it to be present", f"Add '{location[-1]}'.")
    rule = error["msg"].removeprefix("Value error, ").replace(" should ", " to ", 1)
    return line, ExhibitError(subject, f"found {error['input']!r}", rule[0].lower() + rule[1:], "Correct the value.")


def _locate(raw: Any, loc: tuple[int | str, ...]) -> tuple[list[str], int]:
    """The keys of `loc` that stand in the file (tags of unions do not), and the line of the last one found."""
    node, line, keys = raw, 1, []
    for position, step in enumerate(loc):
        present = (isinstance(node, dict) and step in node) or (
            isinstance(node, list) and isinstance(step, int) and step < len(node)
        )
        if present:
            if isinstance(node, CommentedBase):
                line = (node.lc.key(step) if isinstance(node, dict) else node.lc.item(step))[0] + 1
            node = node[step]
            keys.append(str(step))
        elif position == len(loc) - 1:
            keys.append(str(step))
    return keys, line


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys `model` allows at `location`, following the fields' annotations."""
    models = [model]
    for step in location:
        annotations = [m.model_fields[step].annotation for m in models if step in m.model_fields]
        models = [found for annotation in annotations for found in _models_in(annotation)] or models
    return sorted({field for m in models for field in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]
