"""The coordinating centre's half of the system."""
