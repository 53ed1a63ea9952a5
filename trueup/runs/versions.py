"""What a run was made with: asked from package metadata, so that nothing is imported for it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "trueup",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "safetensors",
    "datasets",
    "numpy",
    "sqlalchemy",
)


def installed_versions() -> dict[str, str]:
    """Python, the system and every package that can change a number; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
