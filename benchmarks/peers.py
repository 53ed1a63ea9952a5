"""Environments of the software that trueup is measured beside, made once and kept beside the project's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
WITH_TRL = ("accelerate==1.15.0", "datasets==5.2.0", "peft", "rich", "pandas")


def trl_python(version: str) -> str:
    """The Python of an environment with this version of TRL and our own torch and transformers."""
    folder = ROOT / ".peers" / f"trl-{version}"
    python, ready, wanted = folder / "bin" / "python", folder / "ready", " ".join(WITH_TRL)
    if not ready.exists() or ready.read_text() != wanted:
        click.echo(f"making {folder} (once)", err=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        words = ["-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), f"trl=={version}", *WITH_TRL]
        subprocess.run([str(python), *words], check=True)
        ready.write_text(wanted)
    return str(python)
