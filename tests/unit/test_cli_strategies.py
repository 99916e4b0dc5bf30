"""`researcher strategies` names them all and says what each parameter is."""

import json

import pytest

from researcher.cli.main import main
from researcher.strategies.load import strategy_class, strategy_names


def test_every_strategy_is_listed_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == strategy_names()
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", strategy_names())
def test_every_parameter_has_a_default_and_a_description(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["parameters"]) == set(strategy_class(name).model_fields) - {"name"}
    assert all(parameter["about"] for parameter in told["parameters"].values())
    # The defaults are a valid choice of parameters, so what is printed can be given back.
    strategy_class(name).model_validate({key: each["default"] for key, each in told["parameters"].items()})


def test_an_unknown_one_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "bem"]) == 2
    assert "did you mean beam?" in capsys.readouterr().err
