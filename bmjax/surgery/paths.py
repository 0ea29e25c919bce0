"""Parameters by path: nested dicts to flat ones and back, renamed or labelled."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bmjax.typing import Params


def flatten(tree: Params) -> dict[str, Any]:
    """Leaves of nested dicts by path, keys joined with `/`, in sorted order."""
    flat: dict[str, Any] = {}
    for name in sorted(tree):
        value = tree[name]
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": v for rest, v in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from paths: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *modules, name = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = value
    return tree


def label_paths(
    params: Params, rules: Sequence[tuple[str, Any]], *, default: Any
) -> dict[str, Any]:
    """A label for each leaf, as nested dicts of the same keys.

    Args:
      params: nested dicts; the leaves are not looked at.
      rules: pairs of a regular expression and a label; a path gets the label of the
        first expression that matches it in full.
      default: label of all other paths.

    Raises:
      ValueError: an expression matches no path.
    """
    paths = list(flatten(params))
    require_matches([pattern for pattern, _ in rules], paths)
    return unflatten({path: _label(path, rules, default) for path in paths})


def rename(
    leaves: Mapping[str, Any], rules: Sequence[tuple[str, str]]
) -> dict[str, tuple[str, Any]]:
    r"""Leaves by new path, each with its old one.

    Args:
      leaves: by path.
      rules: pairs of a regular expression and what a path that it matches in full
        becomes, with groups as `\1`; the first that matches counts.

    Raises:
      ValueError: an expression matches no path, or two paths become one.
    """
    require_matches([pattern for pattern, _ in rules], list(leaves))
    found: dict[str, tuple[str, Any]] = {}
    for old, leaf in leaves.items():
        matches = ((re.fullmatch(pattern, old), new) for pattern, new in rules)
        path = next((match.expand(new) for match, new in matches if match), old)
        if path in found:
            raise ValueError(
                f"rename makes '{path}' of both '{found[path][0]}' and '{old}'; write "
                "narrower patterns"
            )
        found[path] = old, leaf
    return found


def first_match(patterns: Sequence[str], path: str) -> str | None:
    """The first pattern that matches the whole path."""
    return next((p for p in patterns if re.fullmatch(p, path)), None)


def require_matches(patterns: Sequence[str], paths: Sequence[str]) -> None:
    """Refuse patterns that match none of the paths.

    Raises:
      ValueError: names the pattern and the modules that there are.
    """
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in paths):
            tops = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise ValueError(
                f"pattern '{pattern}' matches no tensor; a pattern must match a whole "
                "path, such as 'heads/.*'. Modules: " + ", ".join(tops)
            )


def _label(path: str, rules: Sequence[tuple[str, Any]], default: Any) -> Any:
    return next((label for p, label in rules if re.fullmatch(p, path)), default)
