"""One base in memory, and the adapters that sit on it: another one writes by a switch, not by loading a model.

Their matrices stay beside the base's. Folded in they would have to be taken out again, which leaves rounding behind;
so what is written differs from that of a folded model where rounding decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from ..config import ModelSettings, Sampling
from ..models.adapters import CONFIG_FILE, put_on, switched
from ..models.language_model import LanguageModel
from ..models.load import check_words, load_encoder, load_model
from ..records import Completion, Prompt
from .sampler import Sampler


class Bases:
    """Those in memory. A base is gone as soon as nothing that writes on it is left."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._held: WeakValueDictionary[tuple[str, ...], SharedBase] = WeakValueDictionary()

    def writer(self, chain: Sequence[str], source: str = "") -> Writer:
        """For a folder or hub id with weights, then adapters: all but the last of them are folded in."""
        on_top = len(chain) > 1 and (Path(chain[-1]) / CONFIG_FILE).is_file()
        below, folder = (tuple(chain[:-1]), chain[-1]) if on_top else (tuple(chain), None)
        base = self._held.get(below)
        if base is None or base.is_spoilt:
            base = self._held[below] = SharedBase(below, self.settings)
        return Writer(base, folder, source)


class SharedBase:
    def __init__(self, chain: tuple[str, ...], settings: ModelSettings) -> None:
        self.chain, self.settings = chain, settings
        self.model = load_model(chain, settings)
        self._adapter = None  # peft's object, once there is an adapter
        self._names: dict[str, str] = {}  # of the adapters in memory, by folder
        self.is_spoilt = False  # by an adapter that did not fit: what it left behind would be in the way of others

    def named(self, folder: str) -> str:
        """The name under which the adapter in `folder` can be switched on."""
        if folder not in self._names:
            name = f"adapter{len(self._names)}"
            try:
                self._adapter = put_on(self.model.network, self._adapter, name, folder)
            except BaseException:
                self.is_spoilt = True
                raise
            self._names[folder] = name
        return self._names[folder]


class Writer:
    """An `Engine`: the base, or one adapter on it."""

    def __init__(self, base: SharedBase, folder: str | None, source: str) -> None:
        self.base, self.name = base, None
        encoder = base.model.encoder
        if folder is not None:
            encoder = load_encoder(folder, base.settings, None)
            check_words([*base.chain, folder], encoder, base.settings)
            self.name = base.named(folder)
        with switched(base.model.network, self.name):
            self.model = LanguageModel(base.model.network, encoder, source=source)
        self._sampler = Sampler(self.model)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        with switched(self.model.network, self.name):
            return self._sampler.sample(prompts, sampling, seed=seed, n=n)

    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        with switched(self.model.network, self.name):
            return self._sampler.logprobs(completions, temperature)
