"""What privacy costs: one experiment at several epsilons and without, as a table and a picture.

Without privacy the batch's gradient is clipped where with privacy each patient's is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from common.files import write_json
from server.progress import Progress
from simulation.run import Simulation, composed, simulate
from simulation.sites import share_hospitals

EPSILONS = (1.0, 3.0, 8.0, None)
"""Patient-level epsilon of the whole study at each site; None: without differential privacy."""
FILE, PICTURE = "epsilons.json", "epsilons.png"

Row = Mapping[str, Any]


def compare_epsilons(run: Simulation, console: Console) -> str:
    """Run the experiment at every epsilon, each in a folder of its own; return the worst status.

    Writes epsilons.json and epsilons.png into the run's folder. What is done is not run again.
    """
    rows = [_row(run, epsilon, console) for epsilon in EPSILONS]
    headline = rows[0]["headline"]
    write_json(run.folder / FILE, {"experiment": run.study.name, "rows": rows})
    picture_of(rows, run.study.name).savefig(run.folder / PICTURE, dpi=120)
    console.print(table_of(rows, f"{run.study.name}: {headline} on held-out patients"))
    console.print(f"picture  {run.folder / PICTURE}", highlight=False)
    statuses = [row["status"] for row in rows]
    return next((s for s in ("failed", "partial") if s in statuses), "completed")


def _row(run: Simulation, epsilon: float | None, console: Console) -> dict[str, Any]:
    name = "none" if epsilon is None else f"{epsilon:g}"
    # Steps of the same length: without it the learning rate would serve one of the two alone.
    asked = ["privacy=none", f"training.grad_clip_norm={run.study.privacy.max_grad_norm:g}"]
    if epsilon is not None:
        asked = ["privacy=patient_eps8", f"privacy.target_epsilon={epsilon:g}"]
    kept = [o for o in run.overrides if not o.startswith(("privacy=", "privacy.target_epsilon="))]
    console.print(f"[bold]{run.study.name}[/], epsilon {name}", highlight=False)
    folder = run.folder / f"epsilon-{name}"
    share_hospitals(folder, run.folder)
    result = simulate(composed(folder, [*kept, *asked]), Progress(console))
    headline = result["headline"]
    spent = [account["epsilon"] for account in result["privacy"].values()]
    noise = [account["noise_multiplier"] for account in result["privacy"].values()]
    return {
        "epsilon": name,
        "status": result["status"],
        "headline": headline,
        "mean": result["final"]["mean"].get(headline),
        "worst": result["final"]["worst"].get(headline),
        "most_spent": max(spent, default=None),
        "least_noise_multiplier": min(noise, default=None),
    }


def table_of(rows: Sequence[Row], title: str) -> Table:
    """Return the rows as a table; `cost` is what the mean loses to the run without privacy."""
    table = Table(title=title)
    for column in ("epsilon", "mean", "worst site", "cost", "most spent", "least noise"):
        table.add_column(column, justify="right", no_wrap=True)
    free = next((row["mean"] for row in rows if row["most_spent"] is None), None)
    for row in rows:
        cost = None if None in (free, row["mean"]) else free - row["mean"]
        values = (row["mean"], row["worst"], cost)
        more = (row["most_spent"], row["least_noise_multiplier"])
        table.add_row(
            row["epsilon"], *(_number(v, 3) for v in values), *(_number(v, 2) for v in more)
        )
    return table


def picture_of(rows: Sequence[Row], experiment: str) -> Figure:
    """Return mean and worst site over epsilon."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    labels = [row["epsilon"] for row in rows]
    for key, marker, label in (("mean", "o", "mean"), ("worst", "v", "worst site")):
        axes.plot(labels, [row[key] for row in rows], marker=marker, label=label)
    axes.set_xlabel("patient-level epsilon of the whole study")
    axes.set_ylabel(f"{rows[0]['headline']}, held-out patients")
    axes.set_title(experiment)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
