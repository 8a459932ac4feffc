"""What mkdocs does for links that leave docs/: they work on GitHub, not on the site."""

import re

_LEAVING = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leaves the words of such links, without the link."""
    return _LEAVING.sub(r"\1", markdown)
