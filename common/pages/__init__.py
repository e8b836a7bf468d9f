"""What every page in a browser has in common: its look, its one script, its answers."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the look, the script and the layout lie."""
