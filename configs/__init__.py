"""Hydra groups: what a study may choose from."""

from pathlib import Path

CONFIG_FOLDER = Path(__file__).parent
