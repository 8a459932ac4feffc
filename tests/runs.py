"""A run as occjax.train leaves it, of a model that has learnt nothing."""

from occjax.data import sources
from occjax.runtime import checkpoint, config, mesh, step


def make(folder):
    """Saves fresh weights of a tiny model; returns (folder, config).

    It finds people everywhere: no peak is too low for it.
    """
    settings = config.load("configs/pinet.py:smoke")
    with settings.unlocked():
        settings.model.threshold = -1.0
        settings.model.peaks = 3
    return save(folder, settings)


def save(folder, settings):
    """Saves fresh weights of a config's model; returns (folder, config)."""
    with settings.unlocked():
        settings.data.eval_images = 4
    source = sources.load(settings.data.to_dict(), "test")
    _, model = step.build_model(settings, source.skeleton)
    shape = config.input_shape(settings)
    state = step.init_state(settings, model, shape, mesh.Layout.create())
    with checkpoint.Checkpoints(folder) as checkpoints:
        checkpoints.save(0, state, None, settings)
    return folder, settings
