"""The same work without any framework: one process, client after client, a running sum.

python run_bare.py --clients N --shapes FILE.json --rounds R --work FOLDER
"""

import os

from measured import (
    ENVIRONMENT,
    WORKERS,
    initial_weights,
    now_s,
    read_arguments,
    take_stdout,
    write_result,
)

os.environ.update(ENVIRONMENT)

import torch
from work import trained


def main() -> None:
    """Train, average, and write the result."""
    asked = read_arguments()
    out = take_stdout()
    torch.set_num_threads(WORKERS)
    weights = initial_weights(asked)
    times_s = [now_s()]
    for number in range(asked.rounds):
        sums = [0 * array for array in weights]
        for client in range(asked.clients):
            done = trained(weights, asked.work, client, number)
            for total, array in zip(sums, done, strict=True):
                total += array
        weights = [total / asked.clients for total in sums]
        times_s.append(now_s())
    write_result(out, "torch", asked, times_s, [asked.clients] * asked.rounds, weights)


if __name__ == "__main__":
    main()
