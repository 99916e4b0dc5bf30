"""Parts of the recipe that a machine may lack: absent they skip, named in RESEARCHER_REQUIRE they fail."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "researcher" / "models" / "weights" / "reasoner.gguf"


def need(*modules: str) -> None:
    """Go on if these modules can be imported; the part is called `torch`, which CI names."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as missing:
        if "torch" in os.environ.get("RESEARCHER_REQUIRE", "").split(","):
            pytest.fail(f"RESEARCHER_REQUIRE names torch, but: {missing}", pytrace=False)
        pytest.skip(f"the recipe needs {missing.name}: pip install '.[train,local]'")


@pytest.fixture(scope="session")
def recipe() -> Path:
    """The shipped GGUF, where the recipe without torch can run."""
    need("numpy", "gguf", "tokenizers")
    return SHIPPED


@pytest.fixture(scope="session")
def trainer() -> None:
    """The recipe with torch and transformers."""
    need("torch", "transformers", "numpy", "gguf", "tokenizers", "safetensors")


@pytest.fixture(scope="session")
def folder(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as a transformers folder."""
    from researcher.train.embedded.convert import export_hf

    made = tmp_path_factory.mktemp("exported")
    export_hf(recipe, made)
    return made
