"""What server and sites share; no network."""

from common.monai_alone import import_monai_alone

import_monai_alone()
