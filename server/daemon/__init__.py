"""The server as a daemon: the SuperLink behind its door, and what keeps it and its runs going."""
