"""Many virtual hospitals on one machine."""
