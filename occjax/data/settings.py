"""Settings of a config that become the fields of a transform."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from occjax.errors import UserError


def construct(
    kind: Callable[..., Any], where: str, settings: Mapping[str, Any], **given: Any
) -> Any:
    """An object from settings; a misspelt one is the user's mistake, not a crash.

    Args:
        kind: class of the object.
        where: names the settings in messages.
        settings: keyword arguments from a config.
        given: further ones, not from a config.

    Raises:
        UserError: `kind` does not take one of the settings.
    """
    known = [name for name in inspect.signature(kind).parameters if name not in given]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(
            f"{where}: expected some of {', '.join(known)}; got {', '.join(unknown)}."
        )
    return kind(**settings, **given)
