"""Top-down baselines on crops of LSP Extended: what `python -m studies.lsp` trains.

    hrnet, or none    a narrow HRNet
    simple_baseline   a narrow ResNet-18 with three deconvolutions

From scratch, at 96 x 96, in as many steps as two CPU cores take in 20 minutes.
"""

from ml_collections import ConfigDict

from configs import common, hrnet

BASELINES = {
    "hrnet": dict(
        backbone=dict(
            name="hrnet",
            width=16,
            modules=(1, 2, 1),
            blocks=2,
            stem=32,
            bottlenecks=2,
            concat=False,
        ),
        deconv=(),
    ),
    "simple_baseline": dict(
        backbone=dict(name="resnet", depth=18, width=32), deconv=(128, 96, 64)
    ),
}
SCHEDULES = {
    "hrnet": dict(steps=2600, batch_size=32, lr=3e-3),
    "simple_baseline": dict(steps=9000, batch_size=16, lr=2e-3),
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a baseline, HRNet's if none is named.

    Raises:
        ValueError: there is no such variant.
    """
    variant = variant or "hrnet"
    common.check(variant, tuple(BASELINES))
    config = hrnet.laptop()
    schedule = dict(SCHEDULES[variant])
    config.optim.lr = schedule.pop("lr")
    config.update(dict(schedule, eval_every=2000, checkpoint_every=1000))
    del config.data["crowd"]
    config.data.update(dict(dataset="lsp_crops", padding=1.0, eval_images=0))
    config.data.augment.update(dict(scale=(0.75, 1.25), rotate=60.0, rotate_share=1.0))
    config.model = ConfigDict(
        dict(BASELINES[variant], sigma=1.0, sharpness=10.0, decoder="quarter")
    )
    config.loss.location = 0.01
    return config
