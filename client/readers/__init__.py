"""Image and mask files, by their ending."""

from client.readers.picture import BadFileError, Picture
from client.readers.registry import READERS, read_image, read_mask

__all__ = ["READERS", "BadFileError", "Picture", "read_image", "read_mask"]
