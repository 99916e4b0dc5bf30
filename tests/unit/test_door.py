"""The public door: at most twenty names, all there, and nothing loaded before it is used."""

import subprocess
import sys

import researcher


def test_every_name_of_the_door_is_there_and_there_are_few() -> None:
    assert len(researcher.__all__) <= 20
    assert set(researcher.__all__) == set(researcher._HOMES)
    for name in researcher.__all__:
        assert getattr(researcher, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(researcher, "Orchestra")


def test_importing_the_package_loads_no_engine_and_no_model() -> None:
    code = "import researcher, sys; print([m for m in sys.modules if m.startswith('researcher.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
