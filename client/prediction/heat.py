"""Where a classification's model looked in an image: a picture with the map laid over it.

Shape suffixes: S spatial axes, R rows, K columns.
"""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from client.explain import Asked, explained, explainers_of
from client.explanations import untrained_like, verdict_of
from client.prediction.answers import Answer
from client.prediction.passes import Passes
from client.readers import Picture
from client.row_images import samples_in
from common.transforms import prepare

SIDE_INCHES, DOTS_PER_INCH = 4.0, 128


def heat_of(picture: Picture, answer: Answer, passes: Passes) -> NDArray[np.uint8]:
    """Return [R, K, 3]: the image beside itself with the map of the likeliest class.

    The first method that fits the network (client/explain.py), checked against a network of random
    weights; of a volume in a study of slices it is the slice with the highest score.
    """
    data, classes = passes.study.data, passes.task.config.classes
    of_class = max(range(len(classes)), key=lambda place: answer.scores[classes[place]])
    prepared, _, _ = prepare(data)(picture.array_CS, None, picture.spacing_mm)
    samples = samples_in(prepared, data)
    place = int(passes.look(samples)[0][:, of_class].argmax())
    image_1CS = samples[place : place + 1]
    network = passes.network.to("cpu")
    method = next(iter(explainers_of(network)))
    asked = Asked(network, image_1CS, of_class)
    found = explained(method, asked, untrained_like(passes.study), None)
    network.to(passes.device)
    said = f"{answer.label} ({answer.scores[classes[of_class]]:.2f})"
    flip = picture.affine is not None
    image = _plane(image_1CS[0].mean(0).numpy(), found.map_S, flip)
    heat = _plane(found.map_S, found.map_S, flip)
    return _drawn(image, heat, said, _how(method, verdict_of(found)))


def _plane(values_S: NDArray[Any], map_S: NDArray[Any], flip: bool) -> NDArray[Any]:
    """Return the plane, of a volume the one where the map is highest; the front of a head is up."""
    if values_S.ndim == 3:
        values_S = values_S[..., int(np.unravel_index(map_S.argmax(), map_S.shape)[-1])]
    return values_S[:, ::-1] if flip else values_S


def _how(method: str, verdict: str) -> str:
    name = method.replace("_", " ")
    return f"{name}: {verdict}" if verdict else name


def _drawn(image_XY: NDArray[Any], heat_XY: NDArray[Any], said: str, how: str) -> NDArray[np.uint8]:
    figure = Figure(figsize=(2 * SIDE_INCHES, SIDE_INCHES + 0.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    plain, laid = figure.subplots(1, 2)
    for axis, title in ((plain, f"model says: {said}"), (laid, how)):
        axis.set_axis_off()
        axis.imshow(image_XY.T, cmap="gray")
        axis.set_title(title, fontsize=9)
    laid.imshow(heat_XY.T, cmap=colormaps["inferno"], alpha=0.55)
    figure.supxlabel("for research; not for diagnosis", fontsize=8)
    canvas.draw()
    drawn: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return drawn
