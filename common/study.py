"""The settings of a study: what every hospital is asked to do, and nothing of any one hospital.

A Study is frozen and checked when it is made. It travels as Hydra overrides (common/config.py);
its digest is what a hospital approves. No field names a path, a device or a host.
"""

import re
from dataclasses import dataclass
from typing import Any

from common.checks import fit_for_a_folder, not_negative, one_of, positive
from common.compression_config import CodecConfig, CompressionConfig
from common.data_config import COLUMNS, SEQUENCE, DataConfig
from common.models.config import ModelConfig
from common.strategy_config import BY_METRIC, StrategyConfig
from common.subgroups import check_subgroups
from common.tasks.config import TaskConfig
from common.training_config import TrainingConfig

_SHA256 = re.compile("[0-9a-f]{64}")
PROXIMAL_LIMIT = 2.0
"""Of lr x mu, from which gradient descent on mu/2 ||w - w_t||^2 diverges."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """What the study asks of DP-SGD. A site may be stricter, never laxer."""

    mechanism: str = "none"
    """none, or dp_sgd: Poisson sampling, a clipped gradient a unit, noise."""
    unit: str = "patient"
    """What is drawn, clipped and protected as one: patient, or image. With image a patient of many
    images is protected less; the patient's epsilon counts all the same."""
    images_per_patient: int | None = 1
    """With unit=patient, how many images of a drawn patient a step takes; null: all."""
    augmentations: int = 1
    """Random changes of each drawn image whose gradients are averaged before the clipping (De et
    al., 2022, Sec. 3.2); it costs time, and no privacy."""
    target_epsilon: float | None = None
    """Epsilon that the whole study may spend at a site; gives the noise. Or give the noise."""
    noise_multiplier: float | None = None
    """Standard deviation of the noise over max_grad_norm; instead of target_epsilon."""
    max_grad_norm: float = 1.0
    """Largest norm of one unit's gradient."""
    delta: float | None = None
    """At most 1 / patients of the site; null: 1 / (2 x patients)."""
    physical_batch_size: int = 32
    """Images in one pass, at most; a site with too little memory takes fewer."""

    def __post_init__(self) -> None:
        one_of(("none", "dp_sgd"), **{"privacy.mechanism": self.mechanism})
        one_of(("patient", "image"), **{"privacy.unit": self.unit})
        positive(**{"privacy.augmentations": self.augmentations})
        if self.images_per_patient is not None:
            positive(**{"privacy.images_per_patient": self.images_per_patient})
        positive(**{"privacy.max_grad_norm": self.max_grad_norm})
        positive(**{"privacy.physical_batch_size": self.physical_batch_size})
        for name in ("target_epsilon", "noise_multiplier", "delta"):
            value = getattr(self, name)
            if value is not None:
                positive(**{f"privacy.{name}": value})
        given = [self.target_epsilon is not None, self.noise_multiplier is not None]
        if self.mechanism == "dp_sgd" and sum(given) != 1:
            raise ValueError(
                f"privacy.target_epsilon={self.target_epsilon} and "
                f"privacy.noise_multiplier={self.noise_multiplier}: give exactly one of the two; "
                "the other follows from it"
            )

    @property
    def private(self) -> bool:
        """Whether the updates are differentially private."""
        return self.mechanism != "none"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What the sites tell after the last round: of models of their own, and of their images."""

    own_model: bool = True
    """The site's own: the same start, network and rounds, its own data alone, without privacy."""
    personal_rounds: int = 1
    """Rounds for which the final model is trained further on the site's own data, without privacy;
    0: it is not."""
    personal_mu: float = 0.0
    """Ditto: weight of mu/2 ||v - w||^2, which holds the personal model v to the federated w; 0:
    nothing does."""
    profile: bool | None = None
    """Whether the sites tell how their images look (common/profile.py), so that the distances
    between them can be told; null: they do not."""

    profile_every: int | None = None
    """The profile is told after every k-th round too, each time charged; null: after the last."""
    subgroups: dict[str, list[Any]] | None = None
    """By covariate of the manifests, the values (sex: [F, M]) or the numbers between the bands
    (age: [40, 65]) of subgroups that the final model's metrics are told of; null: of none."""
    amplitudes: bool | None = None
    """Whether the profile has the amplitudes of the low spatial frequencies, for data.amplitudes of
    a later study; null: it has not."""

    @property
    def subgroups_asked(self) -> dict[str, list[str]]:
        """The subgroups with their values as a manifest writes them; empty where there are none."""
        for covariate, values in (self.subgroups or {}).items():
            if any(isinstance(value, bool) for value in values):
                raise ValueError(
                    f"evaluation.subgroups.{covariate}={list(values)}: yes and no are truth values "
                    "to YAML; put them in quotes, as the manifests write them"
                )
        return {of: [str(value) for value in v] for of, v in (self.subgroups or {}).items()}

    def __post_init__(self) -> None:
        not_negative(**{"evaluation.personal_rounds": self.personal_rounds})
        not_negative(**{"evaluation.personal_mu": self.personal_mu})
        if self.personal_mu and not self.personal_rounds:
            raise ValueError(
                f"evaluation.personal_mu={self.personal_mu:g} holds a personal model to the "
                "federated one, and evaluation.personal_rounds=0 trains none; set a number of "
                "rounds, or personal_mu=0"
            )
        check_subgroups(self.subgroups_asked)
        if self.profile_every is not None:
            positive(**{"evaluation.profile_every": self.profile_every})
            if not self.profile:
                raise ValueError(
                    f"evaluation.profile_every={self.profile_every} asks for profiles in between, "
                    "and no profile is asked for; set evaluation.profile=true"
                )
        if self.amplitudes and not self.profile:
            raise ValueError(
                "evaluation.amplitudes=true asks for a part of a profile, and no profile is asked "
                "for; set evaluation.profile=true"
            )


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study, complete. Equal studies have equal digests (common/config.py)."""

    name: str
    """The experiment's name; the folders of its runs are called by it."""
    seed: int = 0
    """Base of every seed of the study."""
    rounds: int = 10
    """Rounds of training."""
    evaluate_every: int = 1
    """The global model is evaluated at the sites before the first round, after every k-th, and
    after the last."""
    begins_with: str | None = None
    """SHA-256 (common/state.py) of the tensors that travel in the first round, which the centre
    has from another study; null: those of an untrained network."""
    model: ModelConfig
    task: TaskConfig
    data: DataConfig
    training: TrainingConfig
    strategy: StrategyConfig
    privacy: PrivacyConfig
    evaluation: EvaluationConfig | None = None
    compression: CompressionConfig | None = None

    def __post_init__(self) -> None:
        fit_for_a_folder(name=self.name)
        not_negative(seed=self.seed)
        positive(rounds=self.rounds, evaluate_every=self.evaluate_every)
        if self.begins_with is not None and not _SHA256.fullmatch(self.begins_with):
            raise ValueError(
                f"begins_with={self.begins_with} is no SHA-256, which has 64 digits 0-9, a-f; "
                "leave it null: wardround-server turns sets it"
            )
        if self.strategy.control_variates:
            self._check_control_variates()
        strange = set(self.training.oversample or {}) - set(self.task.classes)
        if strange:
            raise ValueError(
                f"training.oversample has {sorted(strange)}, which task.classes="
                f"{list(self.task.classes)} does not name; give classes of the task"
            )
        if self.data.segment is not None and not self.task.dense:
            raise ValueError(
                f"data.segment={list(self.data.segment)} cuts images into parts, and "
                f"task.name={self.task.name} has a label for the whole image; set it to null"
            )
        self.task.check_data(self.data)
        self._check_covariates()
        if self.model.residual and not self.task.grey:
            raise ValueError(
                f"model.residual=true adds the image to the answer, and task.name={self.task.name} "
                "asks for no image; leave it null"
            )
        self._check_proximal("strategy.proximal_mu", self.strategy.proximal_mu)
        if self.evaluation is not None:
            self._check_proximal("evaluation.personal_mu", self.evaluation.personal_mu)
        for name in BY_METRIC:
            if getattr(self.strategy, name) is not None and self.evaluate_every != 1:
                raise ValueError(
                    f"evaluate_every={self.evaluate_every} leaves rounds without metrics, by which "
                    f"strategy.{name} weights the sites; set evaluate_every to 1"
                )
        if self.training.logit_adjustment is not None:
            self._check_logit_adjustment(self.training.logit_adjustment)
        if self.training.local_first_steps is not None and not self.model.local:
            raise ValueError(
                f"training.local_first_steps={self.training.local_first_steps} trains first what "
                "stays at the site, and nothing does; set model.local=[head], or leave it null"
            )
        if self.privacy.private and self.training.grad_clip_norm is not None:
            raise ValueError(
                f"training.grad_clip_norm={self.training.grad_clip_norm} has no effect with "
                "differential privacy, which clips each patient's gradient to "
                "privacy.max_grad_norm; set it to null"
            )
        if self.privacy.private and self.task.compares_images:
            raise ValueError(
                "task.method=contrastive cannot train with differential privacy: it compares the "
                "images of a batch, so one patient's gradient does not exist; use "
                "task.method=rotated, which judges each image by itself, or privacy=none"
            )
        if self.privacy.private and self.model.norm == "batch":
            raise ValueError(
                "model.norm=batch cannot train with differential privacy: batch normalisation "
                "mixes the patients of a batch, so one patient's gradient does not exist; use "
                "model.norm=group or model.norm=instance, for answers an image model=anfr, which "
                "has no norm, or privacy=none"
            )

    @property
    def codec_up(self) -> CodecConfig | None:
        """How updates are coded; None where they travel whole."""
        return None if self.compression is None else self.compression.up

    @property
    def codec_down(self) -> CodecConfig | None:
        """How the model of a round is coded; None where it travels whole."""
        return None if self.compression is None else self.compression.down

    def _check_covariates(self) -> None:
        if self.model.covariates != self.data.covariates:
            raise ValueError(
                f"model.covariates={self.model.covariates} is not data.covariates="
                f"{self.data.covariates}, which the sites read; leave model.covariates as it is"
            )
        if self.data.covariates is not None and self.task.dense:
            raise ValueError(
                f"data.covariates={list(self.data.covariates)} say something of a whole image, and "
                f"task.name={self.task.name} has an answer a voxel; set it to null, or choose "
                "task=classification, multilabel or survival"
            )
        if self.data.covariates is not None and self.task.mirrored:
            raise ValueError(
                f"data.covariates={list(self.data.covariates)} are beside the image in what the "
                "network sees, and task.mirrored=true mirrors that; set one of them to null"
            )
        pictures = [f"{SEQUENCE}{name}" for name in self.data.sequences or []]
        taken = {*COLUMNS, *self.task.answer_columns, *pictures} & set(self.data.covariates or {})
        if taken:
            raise ValueError(
                f"data.covariates has {', '.join(sorted(taken))}, which the study reads as the "
                "image or as what is to be found; leave it out"
            )

    def _check_logit_adjustment(self, share: float) -> None:
        if self.privacy.private:
            raise ValueError(
                f"training.logit_adjustment={share:g} counts the site's patients of each class, "
                "which the noise of privacy does not cover; leave it null, or set privacy=none"
            )
        if not self.task.one_class:
            raise ValueError(
                f"training.logit_adjustment={share:g} is for one class an image, and task.name="
                f"{self.task.name} asks for something else; leave it null"
            )

    def _check_proximal(self, name: str, mu: float) -> None:
        training = self.training
        # A plain step multiplies the distance to the reference by 1 - lr mu.
        if training.optimizer == "sgd" and training.lr * mu >= PROXIMAL_LIMIT:
            raise ValueError(
                f"{name}={mu:g} with training.lr={training.lr:g} throws the weights further from "
                f"the model that it holds them to with every step; give less than "
                f"{PROXIMAL_LIMIT / training.lr:g}"
            )

    def _check_control_variates(self) -> None:
        training = self.training
        if training.optimizer != "sgd" or training.momentum or training.weight_decay:
            raise ValueError(
                "strategy.control_variates=true takes the site's gradient from its steps, which "
                f"training.optimizer={training.optimizer}, momentum={training.momentum:g}, "
                f"weight_decay={training.weight_decay:g} do not tell; set optimizer=sgd and both "
                "others to 0"
            )
        fixed = (training.lr_factors, self.model.trained, self.model.lora_rank)
        if any(setting is not None for setting in fixed):
            raise ValueError(
                f"training.lr_factors={training.lr_factors}, model.trained={self.model.trained} or "
                f"model.lora_rank={self.model.lora_rank}: strategy.control_variates=true takes "
                "every parameter's gradient from steps of one length; leave all three null"
            )
        if training.local_first_steps is not None:
            raise ValueError(
                f"training.local_first_steps={training.local_first_steps} takes turns, and "
                "strategy.control_variates=true takes every parameter's gradient from all steps; "
                "set one of them to null"
            )
        for side, codec in (("up", self.codec_up), ("down", self.codec_down)):
            if codec is not None and codec.kept is not None:
                raise ValueError(
                    f"compression.{side}.kept={codec.kept:g} leaves out what is added later, and "
                    "the variates of strategy.control_variates=true are told anew in each round; "
                    f"set compression.{side}.kept=null"
                )
        if self.strategy.fraction < 1:
            raise ValueError(
                f"strategy.fraction={self.strategy.fraction:g} leaves sites out of a round, and "
                "strategy.control_variates=true needs the variates of all; set fraction to 1"
            )
