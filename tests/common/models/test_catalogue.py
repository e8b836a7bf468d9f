from common.models.catalogue import CARDS, catalogue
from common.models.registry import MODELS, build_model, model_config_type
from tests.common.models.tiny import SMALLEST


def test_every_network_is_in_the_catalogue() -> None:
    assert set(CARDS) == set(MODELS)


def test_every_network_but_the_one_without_learned_layers_is_proved_private() -> None:
    # tests/client/privacy/engine/test_preflight.py proves each of SMALLEST, the other its own test.
    assert set(SMALLEST) == set(MODELS) - {"scattering"}


def test_parameters_are_those_of_the_network_that_is_built() -> None:
    found = {row["name"]: row for row in catalogue()}
    for name in ("unet", "cnn", "scattering"):
        config = model_config_type(name)(name=name)
        weights = sum(p.numel() for p in build_model(config, 0).parameters())
        assert found[name]["parameters"] == weights
    assert found["scattering"]["dims"] == [2]
    assert 6e6 < found["chexnet"]["parameters"] < 8e6
    assert 23e6 < found["resnet50"]["parameters"] < 25e6
