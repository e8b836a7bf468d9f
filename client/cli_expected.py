"""The verb expected of wardround-site: what would a study's model do here, had we not joined?

wardround-site expected RUN
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.expected import Answer

DEFAULT_SITE = Path("site.yaml")
TOLD = 3
"""Files that are told of those that cannot be used."""
LIMIT = (
    "this goes by your mean image in coarse blocks: images of another sequence that look alike in "
    "them are not told apart, so try the model on some patients of yours that are labelled"
)


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("expected")(expected)


def expected(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished study's run folder.")],
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
) -> None:
    """Tell how good the model of a study may be here that this hospital did not join.

    From its images alone, without a label. Everything stays on this machine.
    """
    # Imports torch, which the other verbs do without.
    from client.expected import expected_at
    from client.site import load_site

    for line in lines_of(expected_at(run, load_site(site).manifest_path)):
        typer.echo(line)


def lines_of(answer: "Answer") -> list[str]:
    """Return the answer in sentences."""
    found, name = answer.expected, answer.metric
    line, (low, high) = found.predicted, answer.interval
    lines = [
        f"expected {name} drop at your hospital: {line.drop:.3f} "
        f"(95 % interval {line.low:.3f} to {line.high:.3f})",
        f"so a {name} of {answer.value:.3f} ({low:.3f} to {high:.3f}), where the study's sites "
        f"have {found.mean:.3f} on average",
        f"your images, of {answer.patients} patients, are at a distance of {found.distance:.3f} "
        f"from those of all its sites; the sites lie between {found.nearest:.3f} and "
        f"{found.furthest:.3f} from the others",
    ]
    if found.beyond:
        lines.append(
            "that is further away than any site of the study: the line is drawn on beyond what it "
            "was made of, so try the model on some patients before you believe the figure"
        )
    lines += [_trust(answer), LIMIT]
    if answer.bad_files:
        told = "; ".join(map(str, answer.bad_files[:TOLD]))
        lines.append(f"{len(answer.bad_files)} files cannot be used: {told}")
    return lines


def _trust(answer: "Answer") -> str:
    score = answer.score
    if score is None:
        return (
            "nobody has tried how well this holds in this study, whose model has seen each of the "
            "sites that the line is made of; leaving each out in turn tells (leave-one-out, turns)"
        )
    return (
        f"when each site of the study was left out in turn, {score['covered']} of "
        f"{len(score['sites'])} drops lay in their interval; the drop was off by "
        f"{score['mean_error']:.3f} on average, by {score['mean_error_without']:.3f} with none "
        "expected"
    )
