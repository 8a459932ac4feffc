"""A few photographs, learnt by heart: what `python -m studies.photographs` trains.

The laptop's PINet on sixteen crowded photographs, which it is also scored on. Views
keep the scale of the test and move about, so that every part of a photograph is seen.
"""

from ml_collections import ConfigDict

from configs import pinet


def get_config(variant: str = "") -> ConfigDict:
    """The settings; the command says where the photographs are (`data.dir`).

    Raises:
        ValueError: a variant is asked for; there is none.
    """
    if variant:
        raise ValueError(f"there is no variant {variant!r}; there are none")
    config = pinet.get_config()
    config.steps, config.batch_size = 1500, 8
    config.eval_every = config.steps
    config.log_every = 50
    del config.data["crowd"]
    config.data.update(dict(dataset="coco", split="chosen", eval_split="chosen"))
    config.data.update(dict(size=192, max_persons=4, eval_images=0))
    config.data.augment.update(dict(scale=(1.0, 1.0), rotate=0.0, translate=0.3))
    # Small maps: narrow Gaussians keep people apart. A short schedule: offsets learn
    # faster with a larger share of the loss than the paper's.
    config.model.update(dict(sigma=1.0, part_sigma=1.0))
    config.loss.update(dict(offset=0.3, refine=0.3))
    return config
