"""Samples from a diffusion model, on the device itself."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

__version__: str

class EdgegenError(Exception):
    """The model or the network failed: one line that says what was wrong, and what would be right."""

@final
class Input:
    """An input of a network."""

    name: str
    role: str
    """"sample", "time", "next", "class" or "condition"."""
    shape: tuple[int, ...]
    element_type: str

@final
class Outcome:
    """What a run came to."""

    ending: str
    """"complete", "callback" or "deadline"."""
    steps: int
    nfe: int

@final
class Model:
    """A loaded network: immutable, and shared between threads."""

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        scheduler_config: str | None = None,
        sample_shape: tuple[int, ...] | None = None,
        inputs: Mapping[str, str] | None = None,
        time_as: str | None = None,
        output: str | None = None,
        condition_shapes: Mapping[str, tuple[int, ...]] | None = None,
        join: Sequence[tuple[str, tuple[int, ...] | None]] | None = None,
        max_memory: int | None = None,
    ) -> Model:
        """Opens an ONNX file, or the folder of a diffusers pipeline.

        scheduler_config: the text of a diffusers scheduler_config.json, for a model that gives no noise schedule.
        sample_shape: one sample's shape, for a graph that leaves it open.
        inputs: names of inputs by role ("sample", "time", "next", "class", "condition"), where they cannot be told;
            "none" for the time of a network that takes none.
        time_as: what the network is told of the noise: "step", "alpha-bar", "gamma", "sigma", "log-snr", "unit" or
            "quarter-log-sigma"; what the model or its input's name says, else the training step, if it is left out.
        output: the name of the output that is the prediction, of a network that has several.
        condition_shapes: shapes of the arrays that are given for conditions, where the file leaves them open.
        join: what the network takes in one input with its sample, in channels after the sample's, and the shapes of the
            arrays; conditions of these names give them. ("sample", None) is the sample's place among them.
        max_memory: the most bytes that the model may take; 16 times its files, and at least 1 GiB, if it is left out.
        """

    @staticmethod
    def from_bytes(
        data: bytes,
        *,
        scheduler_config: str | None = None,
        sample_shape: tuple[int, ...] | None = None,
        inputs: Mapping[str, str] | None = None,
        time_as: str | None = None,
        output: str | None = None,
        condition_shapes: Mapping[str, tuple[int, ...]] | None = None,
        join: Sequence[tuple[str, tuple[int, ...] | None]] | None = None,
        max_memory: int | None = None,
    ) -> Model:
        """Opens an ONNX model that is in memory."""

    @staticmethod
    def embedded() -> Model:
        """The model that comes with edgegen: 28×28 pictures of garments in ten classes."""

    @property
    def sample_shape(self) -> tuple[int, ...]: ...
    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value of a sample."""

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their indices."""

    @property
    def inputs(self) -> list[Input]: ...
    @property
    def engine(self) -> str:
        """What runs the network."""

@final
class Generator:
    """Makes samples in memory of its own. For one thread at a time: give each its own."""

    def __new__(
        cls,
        model: Model,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        timesteps: list[float] | None = None,
        mu: float | None = None,
        guidance: float | None = None,
        threads: int = 1,
    ) -> Generator:
        """What is not given is what suits the model.

        timesteps: the times that the steps visit, as the network counts them, in place of steps and spacing.
        mu: by how much the steps of a flow with use_dynamic_shifting are shifted; by default it follows from the sample's size.
        threads: how many share each network call; the sample has the same bits for any number.
        """

    @property
    def sample_shape(self) -> tuple[int, ...]: ...
    def generate(
        self,
        seed: int = 0,
        index: int = 0,
        *,
        class_: int | str | None = None,
        conditions: Mapping[str, NDArray[np.float32] | NDArray[np.int64] | NDArray[np.bool_] | float] | None = None,
        noise: NDArray[np.float32] | None = None,
        init: NDArray[np.float32] | None = None,
        strength: float | None = None,
        sigma: float | None = None,
        deadline: float | None = None,
        on_step: Callable[[int, int, NDArray[np.float32]], bool | None] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Makes sample `index` of the run of `seed`, without holding Python's lock.

        class_: an index or a name. The model's "no class" if it has one and none is given, else class 0.
        conditions: float32, int64 or bool arrays by the names of the network's inputs.
        noise: standard normal numbers to start from instead of the seed's.
        init: a sample to start from instead of noise, with `strength` or `sigma`.
        strength: makes another sample near init, or renews a plan: the share of the steps that is run, above 0 to 1.
        sigma: takes the noise from init, which has noise of this standard deviation.
        deadline: seconds from now after which no further step begins; the sample is then the best there is by then.
        on_step: called with (step, steps, estimate of the clean sample) after every step; True ends the run.
        out: where the sample goes; a new array if it is not given.
        """

    @property
    def outcome(self) -> Outcome | None:
        """What the latest run came to."""

@final
class Decoder:
    """Makes pictures of samples that are latents. For one thread at a time: give each its own."""

    def __new__(
        cls,
        path: str | PathLike[str],
        model: Model,
        *,
        scale: float | None = None,
        shift: float | None = None,
        threads: int = 1,
        max_memory: int | None = None,
    ) -> Decoder:
        """Opens the decoder of the model's samples: an ONNX file, or the folder that holds it as model.onnx.

        scale, shift: latents are divided by the one, and the other is added; those of the config.json beside the decoder if
            they are left out.
        """

    @property
    def picture_shape(self) -> tuple[int, ...]: ...
    def decode(self, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture, from -1 (black) to 1 (white), of a sample."""
