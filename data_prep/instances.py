"""Cuts people out of a prepared dataset, to be pasted over others in training.

  python -m data_prep.instances --dataset coco --split train --output people.npz

and then, in a config, `occlusion=(dict(name="paste_instance", pool="people.npz"),)`.
Cut out are people who are big enough, have joints and stand alone (spec of DAG, section
2.3); at most --limit, two whole bodies for each upper body as far as there are enough.
Images of evaluation splits are refused. COCO's training images that CrowdPose tests on
stay out if the dataset was prepared without them.
"""

import itertools
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import tqdm
from absl import flags

import data_prep
from data_prep.account import Account
from occjax.data import pool, sources
from occjax.errors import UserError

FLAGS = flags.FLAGS

_WHOLE_TO_UPPER = 2
# "trainval" is what CrowdPose is trained on, so it is no "val"; all of OCHuman is
# there to be scored on, whatever a split of it is called.
_EVALUATION = re.compile(r"ochuman|(?<![a-z])(val|valid|validation|test)(?![a-z])")


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("dataset", "coco", "Name of a prepared dataset.")
    flags.DEFINE_string("dir", "datasets", "Folder of all datasets.")
    flags.DEFINE_string("split", "train", "Split to cut from.")
    flags.DEFINE_string("output", None, "The .npz file to write.")
    flags.DEFINE_integer("limit", 20000, "Most people.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Chooses among more.", lower_bound=0)
    flags.mark_flags_as_required(["output"])


def main() -> None:
    """Cuts out what the flags describe."""
    source = sources.Prepared(FLAGS.dir, FLAGS.dataset, FLAGS.split)
    account = collect(source, FLAGS.output, FLAGS.limit, FLAGS.seed)
    print(f"{FLAGS.output}\n{account.table()}")


def collect(
    source: sources.Prepared, output: str | pathlib.Path, limit: int, seed: int
) -> Account:
    """Writes the pool of a split; returns what became of its people.

    Raises:
        UserError: it is an evaluation split, nobody can be cut out, or the file cannot
            be written.
    """
    refuse_evaluation(source)
    account = Account()
    found = _candidates(source, account)
    rng = np.random.default_rng(seed)
    chosen = sorted(_balanced(found, limit, rng, account))
    images = {index for index, _, _ in chosen}
    empty = len(source) - len(images)
    account.drop("images", "nobody to cut out or needed", empty)
    for _, group in itertools.groupby(chosen, lambda item: item[0]):
        account.keep(len(list(group)))
    account.check()
    ids = [int(source[index]["image_id"]) for index, _, _ in chosen]
    facts = {"dataset": source.name, "split": source.split, **account.facts()}
    cut_out = _instances(source, chosen)
    pool.Pool.of(cut_out, source.skeleton, facts, ids).save(output)
    return account


def refuse_evaluation(source: sources.Prepared) -> None:
    """Keeps images that methods are scored on out of pools.

    Raises:
        UserError: the split, or the annotation file it was made from, is named like an
            evaluation split.
    """
    file = str(source.facts.get("annotations", ""))
    for name in (source.name, source.split, file):
        if _EVALUATION.search(name.lower()):
            raise UserError(
                f"{source.name}, split {source.split} of {file or 'no file'}: people "
                "of evaluation images must not be pasted; choose another split."
            )


def _candidates(
    source: sources.Prepared, account: Account
) -> list[tuple[int, int, bool]]:
    """Image index, row and wholeness of everybody who can be cut out."""
    found = []
    # Without a terminal the bar would be noise in a log.
    for index in tqdm.trange(len(source), unit=" images", disable=None):
        record = source[index]
        reasons = pool.refusals(record)
        account.receive(1, len(reasons))
        for row, reason in enumerate(reasons):
            if reason:
                account.drop("persons", reason)
            else:
                joints = record["persons"]["joints"][row]
                found.append((index, row, pool.is_whole(joints, source.skeleton)))
    return found


def _balanced(
    found: list[tuple[int, int, bool]],
    limit: int,
    rng: np.random.Generator,
    account: Account,
) -> list[tuple[int, int, bool]]:
    """At most `limit` of them, chosen at random, two whole bodies to an upper one."""
    kinds = [[item for item in found if item[2] is whole] for whole in (True, False)]
    share = limit // (_WHOLE_TO_UPPER + 1)
    uppers = min(len(kinds[1]), max(share, limit - len(kinds[0])))
    wholes = min(len(kinds[0]), limit - uppers)
    chosen = []
    for items, most in zip(kinds, (wholes, uppers), strict=True):
        chosen += [items[i] for i in rng.permutation(len(items))[:most]]
    account.drop("persons", f"more than {limit}", len(found) - len(chosen))
    return chosen


def _instances(
    source: sources.Prepared, chosen: list[tuple[int, int, bool]]
) -> Iterator[pool.Instance]:
    for index, row, _ in tqdm.tqdm(chosen, unit=" people", disable=None):
        yield pool.cut(source[index], row, source.skeleton)


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
