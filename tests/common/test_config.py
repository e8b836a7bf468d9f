import re
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from common.config import canonical, compose, load_study, sent, study_digest, study_of
from common.schema import SettingsError
from configs import CONFIG_FOLDER

EXPERIMENTS = sorted(path.stem for path in (CONFIG_FOLDER / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_a_study(experiment: str) -> None:
    assert load_study([f"experiment={experiment}"]).name == experiment


@pytest.mark.parametrize("group", ["model", "strategy", "privacy", "training", "data", "task"])
def test_every_choice_of_every_group_is_a_study(group: str) -> None:
    needs = {
        "scaffold": ["training.optimizer=sgd"],
        "restoration": ["data.normalise=minmax"],
    }
    for path in (CONFIG_FOLDER / group).glob("*.yaml"):
        assert load_study([f"{group}={path.stem}", *needs.get(path.stem, [])])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.lr=-1", "training.lr=-1.0"),
        ("training.lr=fast", "fast"),
        ("training.leap=1", "training.leap"),
        ("model=unknown", "unknown"),
        ("model.norm=layer", "model.norm='layer'"),
        ("data.size=[64]", "data.size=[64]"),
        ("rounds=0", "rounds=0"),
        ("privacy=patient_eps8 privacy.noise_multiplier=1", "give exactly one"),
        ("privacy=patient_eps8 model.norm=batch model.batch_norm_policy=average", "one patient's"),
        ("privacy=patient_eps8 model.norm=batch model.batch_norm_policy=average", "model=anfr"),
        ("model.norm=batch", "model.batch_norm_policy"),
        ("privacy=patient_eps8 training.grad_clip_norm=1", "privacy.max_grad_norm"),
        ("training.momentum=0.9", "training.optimizer=sgd"),
        ("strategy.fraction=1.5", "strategy.fraction=1.5"),
        ("name=a/../../b", "name='a/../../b' is not allowed"),
        ("name=..", "name='..' is not allowed"),
        (f"name={'y' * 201}", "200 letters"),
    ],
)
def test_a_bad_setting_is_named(override: str, told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_study(override.split())


@pytest.mark.parametrize(
    ("overrides", "outputs"),
    [
        (["model=unet128"], 1),
        (["model=unet128", "model.out_channels=2"], 2),
        (["model=unet"], 2),
        (["experiment=hippocampus", "model=unet128"], 3),
        (["experiment=virtual_restoration"], 1),
        (["experiment=hippocampus_pretraining"], 1),
    ],
)
def test_unet128_ends_in_one_sigmoid_where_one_class_is_segmented(
    overrides: list[str], outputs: int
) -> None:
    assert load_study(overrides).model.out_channels == outputs


def test_a_setting_that_is_null_is_not_in_the_digest() -> None:
    plain = load_study([])
    assert plain.strategy.averaged_rounds is None
    assert "averaged_rounds" not in canonical(plain)
    assert "null" not in canonical(plain)
    assert study_digest(load_study(["strategy.averaged_rounds=2"])) != study_digest(plain)


def test_digest_is_that_of_the_content_and_not_of_the_overrides() -> None:
    plain = load_study(["rounds=3", "seed=1"])
    assert study_digest(plain) == study_digest(load_study(["seed=1", "rounds=3"]))
    assert study_digest(plain) != study_digest(load_study(["rounds=3", "seed=2"]))


def test_no_path_and_no_machine_is_in_the_study(tmp_path: Path) -> None:
    overrides = [f"data.root={tmp_path}", f"run.dir={tmp_path}", "simulation.engine=inprocess"]
    assert str(tmp_path) not in canonical(load_study(overrides))
    assert study_digest(load_study(overrides)) == study_digest(load_study([]))
    assert sent([*overrides, "simulation=real", "+run.x=1", "seed=3", "model=cnn"]) == [
        "seed=3",
        "model=cnn",
    ]


def test_what_a_site_would_refuse_is_named_before_it_is_sent() -> None:
    adds_a_key = "+task.loss.name=cross_entropy"
    with pytest.raises(SettingsError, match=re.escape(adds_a_key)):
        sent(["seed=3", adds_a_key])


def test_compose_works_inside_a_hydra_main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = []

    def job(_: object) -> None:
        found.append(load_study(["seed=7"]).seed)
        assert GlobalHydra.instance().is_initialized()

    monkeypatch.setattr(sys, "argv", ["job", f"hydra.run.dir={tmp_path}"])
    hydra.main(config_path=str(CONFIG_FOLDER), config_name="config", version_base="1.3")(job)()
    assert found == [7]


@pytest.mark.parametrize("name", ["strategy.proximal_mu", "evaluation.personal_mu"])
def test_a_proximal_term_that_a_step_overshoots_is_refused(name: str) -> None:
    overrides = ("evaluation=ditto", "training.optimizer=sgd", "training.lr=30")
    with pytest.raises(SettingsError, match=r"=0.07 with training.lr=30.*less than 0.0666667"):
        load_study([*overrides, "evaluation.personal_mu=0", f"{name}=0.07"])
    assert load_study([*overrides, "evaluation.personal_mu=0", f"{name}=0.06"]).training.lr == 30


SGD, REFERENCE = "training.optimizer=sgd", "data.reference=[-1.0,0.0,2.0]"
ROBUST = "strategy.combine=median strategy.faulty=1 strategy.quorum=3 strategy.weight_by=uniform"
CLASSES = "model=cnn task=classification data=pictures"
REFUSED = [
    ("strategy=scaffold", "takes the site's gradient from its steps"),
    ("method=scaffold training.momentum=0.9", "takes the site's gradient from its steps"),
    ("method=scaffold strategy.fraction=0.5", "needs the variates of all"),
    ("method=scaffold strategy.fairness_q=1", "correct for one mean of them alone"),
    ("method=scaffold strategy.generalisation_step=0.2", "correct for one mean of them alone"),
    ("method=scaffold strategy.agnostic_step=0.1", "correct for one mean of them alone"),
    (f"method=scaffold {ROBUST}", "control_variates=True makes a mean"),
    ("method=scaffold compression=top", "are told anew in each round"),
    ("method=[scaffold,fedrep]", "takes turns"),
    ("method=[scaffold,fedsgd]", "cannot be put together"),
    ("method=fedsgd strategy=fedprox", "strategy=fedprox would take that away"),
    ("strategy=qfedavg strategy.generalisation_step=0.2", "each set the sites' weights"),
    ("strategy=feddg_ga strategy.agnostic_step=0.1", "each set the sites' weights"),
    ("strategy=afl strategy.fairness_q=2", "each set the sites' weights"),
    ("strategy=qfedavg evaluate_every=2", "strategy.fairness_q weights the sites"),
    ("strategy=feddg_ga evaluate_every=2", "strategy.generalisation_step weights the sites"),
    ("strategy=afl evaluate_every=2", "strategy.agnostic_step weights the sites"),
    ("strategy=krum strategy.fairness_q=1", "strategy.fairness_q=1.0 makes a mean"),
    ("strategy=fedmedian strategy.generalisation_step=0.2", "makes a mean"),
    ("strategy=trimmed_mean strategy.agnostic_step=0.1", "makes a mean"),
    (f"strategy=fedprox {SGD} training.lr=300", "throws the weights further"),
    (f"evaluation=ditto {SGD} training.lr=30", "throws the weights further"),
    ("evaluation=ditto evaluation.personal_rounds=0", "personal_rounds=0 trains none"),
    ("method=fedrep model.local=null", "trains first what stays at the site"),
    ("method=[fedper,local_norms]", "give model.local yourself"),
    ("method=[fedbn,test_time_norm]", "give model.batch_norm_policy yourself"),
    ("method=[matched,rank]", "give data.normalise yourself"),
    ("method=fedbn privacy=patient_eps8", "model.norm=batch cannot train with"),
    ("method=test_time_norm privacy=patient_eps8", "model.norm=batch cannot train with"),
    ("method=test_time_norm model.norm=group model.batch_norm_policy=null", "has no effect with"),
    (f"{CLASSES} method=logit_adjustment privacy=patient_eps8", "noise of privacy does not cover"),
    ("method=logit_adjustment", "is for one class an image"),
    ("method=matched", "as shift.reference of a result.json"),
    ("method=rank data.reference=[0.0,1.0]", "does not go with data.normalise=rank"),
    ("method=fourier", r"as shift.amplitudes of a result.json \(evaluation.amplitudes=true"),
    ("method=spacing", "give one number per dimension"),
]


@pytest.mark.parametrize(("overrides", "told"), REFUSED, ids=[pair for pair, _ in REFUSED])
def test_methods_that_cannot_work_together_are_refused_with_the_reason(
    overrides: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        load_study(overrides.split())


def test_a_setting_that_two_methods_differ_in_may_be_given() -> None:
    study = load_study(["method=[fedper,local_norms]", "model.local=[head,norms]"])
    assert study.model.local == ["head", "norms"]
    study = load_study(["method=[spacing,matched]", "data.spacing_mm=[1.0,1.0]", REFERENCE])
    assert (study.data.spacing_mm, study.data.reference) == ([1.0, 1.0], [-1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("misspelt", "told"),
    [
        ("begins_with=mine", "begins_with=mine is no SHA-256"),
        ("training.learning_rate=1", r"no setting is called training\.learning_rate; "),
        ("round=3", r"no setting is called round; did you mean rounds\?"),
        ("data.normalize=rank", r"did you mean data.normalise\?"),
        ("nothing.at.all=1", "wardround-sim --help lists them all"),
    ],
)
def test_a_misspelt_setting_is_told_with_what_was_meant(misspelt: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_study([misspelt])


@pytest.mark.parametrize("wrong", ["rounds=zero", "seed=1.5", "evaluate_every=null"])
def test_a_number_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"{wrong.split('=')[0]}=.* is no whole number"):
        load_study([wrong])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("strategy=feddg_ga", "method=scaffold"), "strategy=feddg_ga would take that away"),
        (("method=rank", "method=fedsgd"), r"give method=\[rank,fedsgd\]"),
        (("method=[scaffold,fedsgd]",), "cannot be put together"),
    ],
)
def test_no_choice_of_two_is_dropped_without_a_word(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        compose(["experiment=smoke", *overrides])


def test_methods_that_go_together_are_put_together() -> None:
    study = load_study(["experiment=smoke", "method=[rank,fedsgd]"])
    assert (study.data.normalise, study.strategy.name) == ("rank", "fedadam")
    study = load_study(["experiment=smoke", "strategy=fedprox", "method=rank"])
    assert (study.data.normalise, study.strategy.name) == ("rank", "fedprox")
    load_study(["experiment=smoke", "strategy=fedadam", "method=fedsgd"])


@pytest.mark.parametrize(
    ("misspelt", "told"),
    [
        ("model=unett", "model=unett is not known; did you mean unet\\? there are: .*unet128"),
        ("experiment=smok", "did you mean smoke"),
        ("method=[rank,scafold]", "method=scafold is not known; did you mean scaffold"),
        ("modles", "modles is no setting, which has the form key=value"),
    ],
)
def test_a_misspelt_choice_is_told_with_those_that_there_are(misspelt: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as raised:
        compose([misspelt])
    assert "provider=" not in str(raised.value)


def test_settings_of_before_studies_could_begin_with_weights_are_still_read() -> None:
    tree = OmegaConf.create(OmegaConf.to_container(compose(["experiment=smoke"])))
    assert isinstance(tree, DictConfig)
    del tree["begins_with"]
    assert study_of(tree) == load_study(["experiment=smoke"])
