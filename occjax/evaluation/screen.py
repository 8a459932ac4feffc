"""Figures as they stand in the tables for the screen."""

from occjax.evaluation import coco


def percent(value: float) -> str:
    """A fraction in per cent with one decimal; - where undefined."""
    return "-" if value == coco.UNDEFINED else f"{100 * value:.1f}"
