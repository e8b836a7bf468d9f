"""A MONAI bundle of a finished study: it is read and run by MONAI alone, without wardround.

docs.monai.io, "MONAI Bundle Specification": configs/metadata.json, configs/inference.json, models,
docs. The network is TorchScript, as MONAI has no class for ours.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.export.graphs import torchscript
from common.files import write_atomic, write_json
from common.finished import Finished
from common.study import Study

OVERLAP = 0.25
_PICTURES: Mapping[int, Sequence[str]] = {2: ["$import PIL.ImageOps as ImageOps"], 3: []}
"""What a configuration imports to read pictures, by the axes of a study."""
SNIPPET = """\
import sys

import numpy as np
import torch
from monai.bundle import ConfigParser

bundle, image, volume = sys.argv[1], sys.argv[2], sys.argv[3] == "volume"
parser = ConfigParser()
parser.read_config(f"{bundle}/configs/inference.json")
parser["bundle_root"], parser["volumes"] = bundle, volume
network = parser.get_parsed_content("network_def").eval()
prepared = parser.get_parsed_content("preprocessing")({"image": image})["image"]
with torch.no_grad():
    logits = parser.get_parsed_content("inferer")(prepared[None], network)
answer = parser.get_parsed_content("postprocessing")({"pred": logits[0]})["pred"]
np.save(sys.argv[4], np.asarray(answer))
"""
"""Runs a bundle on one image; it stands in the bundle's own README."""


def write_bundle(finished: Finished, mark: Mapping[str, str], folder: Path) -> None:
    """Write the bundle into a folder.

    Raises:
        ExportError: the network cannot be traced.
    """
    model = torchscript(finished, mark)
    write_atomic(folder / "models" / "model.ts", model)
    write_json(folder / "configs" / "metadata.json", _metadata(finished, mark))
    write_json(folder / "configs" / "inference.json", inference_of(finished))
    write_atomic(folder / "docs" / "README.md", _readme(finished).encode())


def not_prepared(study: Study) -> list[str]:
    """Return what of the study's preparation MONAI does otherwise or not at all, in words."""
    data = study.data
    told = []
    if data.remove_bias:
        told.append("the removal of a coil's bias is wardround's own; the bundle leaves it out")
    if data.normalise in ("rank", "matched"):
        told.append(
            f"data.normalise={data.normalise} is wardround's own; the bundle leaves values as they "
            "are"
        )
    if data.spatial_dims == 2 and not study.task.dense:
        told.append("of volumes, wardround answers by the mean over the slices; give it pictures")
    if data.spatial_dims == 2 and data.channels > 1:
        told.append("give it no grey picture of more than 8 bits: the bundle gives it no colours")
    if study.task.dense:
        told.append(
            "where an image is larger than the study's, MONAI lays the windows' logits together, "
            "wardround their probabilities, so a few voxels differ"
        )
    if study.task.mirrored:
        told.append(
            "wardround looks at each image mirrored left-right too and takes the mean "
            "(task.mirrored); the bundle looks once, so its answers are less good"
        )
    if data.spacing_mm is not None:
        told.append(
            "MONAI interpolates a little differently where it changes the voxel size, so answers "
            "differ slightly"
        )
    return told


def inference_of(finished: Finished) -> dict[str, Any]:
    """Return configs/inference.json: each part by itself, to be read with ConfigParser."""
    study = finished.study
    dense = study.task.dense
    return {
        "imports": ["$import torch", "$import monai", *_PICTURES[study.data.spatial_dims]],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        # Whether the images are volumes; a study of slices takes pictures too.
        "volumes": study.data.spatial_dims == 3,
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preparation(study)},
        "inferer": _inferer(study) if dense else {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": _answer(finished)},
    }


def _preparation(study: Study) -> list[dict[str, Any]]:
    data, key = study.data, "image"
    reader = {"reader": f"$monai.data.PILReader(converter={_coloured(data.channels)})"}
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": key, "ensure_channel_first": True}
        | (reader if data.spatial_dims == 2 else {}),
        {
            "_target_": "Orientationd",
            "keys": key,
            "axcodes": "RAS",
            "_disabled_": "$not @volumes",
        },
    ]
    if data.spacing_mm is not None:
        # A slice's third number stays the volume's own.
        pixdim = [*data.spacing_mm, *([-1.0] * (3 - len(data.spacing_mm)))]
        steps.append({"_target_": "Spacingd", "keys": key, "pixdim": pixdim})
    if data.normalise == "zscore":
        steps.append({"_target_": "NormalizeIntensityd", "keys": key, "channel_wise": True})
    elif data.normalise == "minmax":
        steps.append(
            {"_target_": "ScaleIntensityd", "keys": key, "minv": 0.0, "maxv": 1.0}
            | {"channel_wise": True}
        )
    flat = data.spatial_dims == 2
    size: Any = f"$[{data.size[0]}, {data.size[1]}] + ([-1] if @volumes else [])"
    size = size if flat else list(data.size)
    if data.fit == "resize":
        steps.append({"_target_": "Lambdad", "keys": key, "func": _resizing(data.size)})
    else:
        fit = "SpatialPadd" if study.task.dense else "ResizeWithPadOrCropd"
        steps.append({"_target_": fit, "keys": key, "spatial_size": size})
    return steps


def _coloured(channels: int) -> str:
    """Return how a study reads a picture (client/readers/raster.py), in PIL; of volumes nothing."""
    mode = "L" if channels == 1 else "RGB"
    upright = "ImageOps.exif_transpose(picture)"
    # PIL cuts what has more than 8 bits when it converts it.
    return f"lambda picture: {upright} if picture.mode[0] in 'IF' else {upright}.convert('{mode}')"


def _resizing(size: Sequence[int]) -> str:
    """Return the study's own resizing (common/resampling.py) in PyTorch, axis by axis.

    Linear, and widened where the image shrinks; MONAI's Resized has no mode that is the same.
    """
    linear = "torch.nn.functional.interpolate({}, ({}, {}), mode='bilinear', antialias=True)"
    slices = linear.format("image.movedim(-1, 0)", *size[:2]) + ".movedim(0, -1)"
    if len(size) == 2:
        picture = linear.format("image[None]", *size) + "[0]"
        return f"$lambda image: {slices} if @volumes else {picture}"
    flat = f"{slices}.flatten(1, 2)[None]"
    deep = linear.format(flat, size[0] * size[1], size[2])
    return f"$lambda image: {deep}[0].unflatten(1, ({size[0]}, {size[1]}))"


def _inferer(study: Study) -> dict[str, Any] | str:
    windows = {"roi_size": list(study.data.size), "overlap": OVERLAP, "mode": "gaussian"}
    if study.data.spatial_dims == 3:
        return {"_target_": "SlidingWindowInferer", **windows}
    told = ", ".join(f"{name}={value!r}" for name, value in windows.items())
    slices = f"monai.inferers.SliceInferer(spatial_dim=2, {told})"
    return f"${slices} if @volumes else monai.inferers.SlidingWindowInferer({told})"


def _answer(finished: Finished) -> list[dict[str, Any]]:
    task = finished.task.config
    if task.name == "multilabel":
        return [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]
    steps: list[dict[str, Any]] = []
    temperature = getattr(task, "temperature", None)
    if temperature is not None:
        func = f"$lambda logits: logits / {temperature!r}"
        steps.append({"_target_": "Lambdad", "keys": "pred", "func": func})
    if task.dense and finished.study.model.out_channels == 1:
        one = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
        return [one, {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    steps.append({"_target_": "Activationsd", "keys": "pred", "softmax": True})
    if task.dense:
        steps.append({"_target_": "AsDiscreted", "keys": "pred", "argmax": True})
    return steps


def _metadata(finished: Finished, mark: Mapping[str, str]) -> dict[str, Any]:
    study, task = finished.study, finished.study.task
    names = ["background", *task.classes] if task.dense else list(task.classes)
    shape = list(study.data.size)
    software = {name: version(name) for name in ("monai", "torch", "numpy")}
    return {
        "version": f"{finished.rounds or 0}.0.0",
        "monai_version": software["monai"],
        "pytorch_version": software["torch"].partition("+")[0],
        "numpy_version": software["numpy"],
        "optional_packages_version": {name: version(name) for name in ("nibabel", "pillow")},
        "name": study.name,
        "task": f"{task.name} of {', '.join(task.classes)}",
        "description": "Trained by federated learning with wardround; see the model card beside "
        "this bundle.",
        "authors": "the participants of the study",
        "copyright": "the participants of the study",
        "intended_use": "research; not a medical device",
        "wardround": dict(mark),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": study.data.channels,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": task.dense,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image" if task.dense else "probabilities",
                    "format": task.name,
                    "num_channels": task.out_channels,
                    "spatial_shape": shape if task.dense else [],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": task.dense,
                    "channel_def": {str(place): name for place, name in enumerate(names)},
                }
            },
        },
    }


def _readme(finished: Finished) -> str:
    study = finished.study
    other = not_prepared(study)
    notes = "\n".join(f"- {line}" for line in other) if other else "- nothing"
    where = (
        "\nThe mask is on the prepared grid. "
        "`wardround-site predict` writes it on the image's own.\n"
    )
    return (
        f"# {study.name}\n\n"
        f"{study.task.name} of {', '.join(study.task.classes)}, trained by federated learning "
        f"(wardround, study {finished.digest}). For research; not a medical device.\n\n"
        "## Run it\n\n"
        "With torch, monai, nibabel and pillow, and without wardround. `volume` where the image is "
        "a volume, `picture` where it is a PNG or JPEG:\n\n"
        "```\npython run.py BUNDLE scan.nii.gz volume answer.npy\n```\n\n"
        f"```python\n{SNIPPET}```\n\n"
        "## What is prepared otherwise than in the study\n\n"
        f"{notes}\n" + (where if study.task.dense else "")
    )
