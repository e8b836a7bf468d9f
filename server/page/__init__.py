"""The page of runs: what a browser shows of the studies of a folder, live or finished."""
