"""Figures of a study's runs, kept beside its page, so that seeds can be added later.

A line of JSON a run: `run`, its name; `config`, a digest of what it was trained with;
`figures`. The last line of a name counts, and those of another config do not.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from occjax.errors import UserError


class Figures:
    """The figures of one page's runs.

    Args:
        page: the page; the figures stand in the file of its name that ends in .jsonl.

    Raises:
        UserError: that file is damaged.
    """

    def __init__(self, page: str | pathlib.Path):
        self._path = pathlib.Path(page).with_suffix(".jsonl")
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    self._rows[row["run"]] = {k: row[k] for k in ("config", "figures")}
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(
                        f"{self._path}, line {number}: expected JSON with run, config "
                        f"and figures, found {line[:60]!r}."
                    ) from error

    def of(self, run: str, config: ConfigDict, measure: Callable[[], Any]) -> Any:
        """The figures of a run: those that are kept, or measured now and kept.

        Args:
            run: its name.
            config: all that the figures hang on.
            measure: trains the run and gives its figures, which JSON can hold.
        """
        digest = hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest()
        kept = self._rows.get(run)
        if kept is None or kept["config"] != digest:
            kept = {"config": digest, "figures": measure()}
            self._rows[run] = kept
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": run, **kept}, allow_nan=False) + "\n")
        return kept["figures"]
