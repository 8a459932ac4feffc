"""What became of every image and person that went into a dataset."""

import collections

from occjax.errors import UserError


class Account:
    """Counts of what came in, what was kept and what was dropped, by reason.

    Whoever reads the input says how much there is and what it drops; whoever writes
    a file counts what it writes. The two must match.
    """

    KINDS = ("images", "persons")

    def __init__(self) -> None:
        """Starts with nothing."""
        self.given = dict.fromkeys(self.KINDS, 0)
        self.kept = dict.fromkeys(self.KINDS, 0)
        self.dropped = {kind: collections.Counter[str]() for kind in self.KINDS}
        self.notes: collections.Counter[str] = collections.Counter()

    def receive(self, images: int, persons: int) -> None:
        """Notes how much the input holds."""
        self.given["images"] += images
        self.given["persons"] += persons

    def drop(self, kind: str, reason: str, count: int = 1) -> None:
        """Notes that images or persons were left out."""
        if count:
            self.dropped[kind][reason] += count

    def note(self, remark: str, count: int = 1) -> None:
        """Notes something odd about what was kept."""
        if count:
            self.notes[remark] += count

    def keep(self, persons: int) -> None:
        """Notes that one image was written with its persons."""
        self.kept["images"] += 1
        self.kept["persons"] += persons

    def merge(self, facts: dict) -> None:
        """Adds what another account counted, given as its `facts`."""
        for kind in self.KINDS:
            self.given[kind] += facts[kind]["in"]
            self.kept[kind] += facts[kind]["kept"]
            self.dropped[kind].update(facts[kind]["dropped"])
        self.notes.update(facts["notes"])

    def check(self) -> None:
        """Makes sure that nothing was lost without a reason.

        Raises:
            UserError: kept and dropped do not sum up to what came in, or nothing
                was kept.
        """
        for kind in self.KINDS:
            found = self.kept[kind] + sum(self.dropped[kind].values())
            if found != self.given[kind]:
                raise UserError(
                    f"{self.given[kind]} {kind} came in, but {self.kept[kind]} kept "
                    f"and {found - self.kept[kind]} dropped make {found}."
                )
        if not self.kept["images"]:
            raise UserError(f"no image is left: {self.summary()}")

    def facts(self) -> dict:
        """The counts, for JSON."""
        counts = {
            kind: {
                "in": self.given[kind],
                "kept": self.kept[kind],
                "dropped": dict(self.dropped[kind]),
            }
            for kind in self.KINDS
        }
        return {**counts, "notes": dict(self.notes)}

    def summary(self) -> str:
        """Why what was dropped was dropped, on one line."""
        reasons = [
            f"{count} {kind}: {reason}"
            for kind in self.KINDS
            for reason, count in self.dropped[kind].most_common()
        ]
        return "; ".join(reasons) or "nothing came in"

    def table(self) -> str:
        """The counts, for people."""
        lines = []
        for kind in self.KINDS:
            lines.append(f"{kind:9} in {self.given[kind]:8}  kept {self.kept[kind]:8}")
            lines += [
                f"  dropped {count:6}  {reason}"
                for reason, count in self.dropped[kind].most_common()
            ]
        lines += [f"  note    {n:6}  {remark}" for remark, n in self.notes.items()]
        return "\n".join(lines)
