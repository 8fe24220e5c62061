"""Tiny models, and a folder of added models that is the test's own."""

from pathlib import Path

import pytest

from tests.cli.tiny import write_tiny


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `dynamicdps models add` puts models."""
    folder = tmp_path / "my-models"
    monkeypatch.setenv("DYNAMICDPS_MODELS", str(folder))
    return folder


@pytest.fixture
def tiny_models(tmp_path: Path) -> tuple[str, str]:
    """A prior and a conditional model with random weights."""
    return tuple(str(write_tiny(tmp_path / "tiny" / f"{kind}.safetensors", kind)) for kind in ("prior", "unet"))  # type: ignore[return-value]
