"""Samples from a diffusion model, on the device itself."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        scheduler_config: str | PathLike[str] | Mapping[str, object] | None = None,
        sample_shape: tuple[int, ...] | None = None,
        inputs: Mapping[str, str] | None = None,
        time_as: str | None = None,
        output: str | None = None,
        condition_shapes: Mapping[str, tuple[int, ...]] | None = None,
        join: Sequence[tuple[str, tuple[int, ...] | None]] | None = None,
        max_memory: int | None = None,
        precision: str = "f32",
    ) -> Model:
        """Opens an ONNX file, or the folder of a diffusers pipeline.

        scheduler_config: a diffusers scheduler_config.json, for a model that gives no noise schedule: a dict, JSON text or a path.
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
        precision: what it computes in: "f32", "f16" (values take half the room, and a CPU with FEAT_FP16 is faster) or "auto" (16
            bits on such a CPU).
        """

    @staticmethod
    def from_bytes(
        data: bytes,
        *,
        scheduler_config: str | PathLike[str] | Mapping[str, object] | None = None,
        sample_shape: tuple[int, ...] | None = None,
        inputs: Mapping[str, str] | None = None,
        time_as: str | None = None,
        output: str | None = None,
        condition_shapes: Mapping[str, tuple[int, ...]] | None = None,
        join: Sequence[tuple[str, tuple[int, ...] | None]] | None = None,
        max_memory: int | None = None,
        precision: str = "f32",
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
        conditions: Mapping[str, ArrayLike] | None = None,
        noise: ArrayLike | None = None,
        init: ArrayLike | None = None,
        strength: float | None = None,
        sigma: float | None = None,
        deadline: float | None = None,
        on_step: Callable[[int, int, NDArray[np.float32]], bool | None] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Makes sample `index` of the run of `seed`, without holding Python's lock.

        class_: an index, a name, or "none" for the model's "no class". One that is not given is drawn from seed and index.
        conditions: numbers by the names of the network's inputs: arrays, which are read as float32, lists or single numbers.
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
    def decode(self, sample: ArrayLike) -> NDArray[np.float32]:
        """A picture, from -1 (black) to 1 (white), of a sample."""

@final
class Stats:
    """What the control steps of a policy came to."""

    steps: int
    """Control steps."""
    plans: int
    """Plans that were made."""
    discarded: int
    """Those of them that were of no use, since all of their actions were of the past."""
    cut_short: int
    """Those that the budget cut short."""
    missed: int
    """Plans that the budget ended before the first network call."""
    failed: int
    """Plans that failed: each was an exception of act."""
    dropped: int
    """Steps without a new observation."""
    stale: int
    """Steps whose latest observation was too old, or that had none."""
    late: int
    """Steps at which a plan was not there that was expected."""
    waiting: int
    """Steps at which a simulated robot waited."""
    dry: int
    """Steps without an action of a plan."""
    delay: int
    """The control steps that the latest plan took to be there."""
    longest_delay: int
    plan_time: float
    """The seconds that the latest plan took to make."""
    longest_plan_time: float

@final
class Policy:
    """A policy in a control loop: an observation in, an action out, at every control step. For one thread at a time."""

    def __new__(
        cls,
        model: Model,
        *,
        n_obs_steps: int | None = None,
        n_action_steps: int | None = None,
        first_action: int | None = None,
        timing: str = "synchronous",
        delay: int = 0,
        joint: str = "switch",
        jacobian: str = "difference",
        most_guidance: float = 5.0,
        warm_start: float | None = None,
        ensemble: float | None = None,
        when_dry: str | NDArray[np.float32] | NDArray[np.float64] | None = None,
        stale_after: int | None = None,
        budget: float | None = None,
        expected_delay: int | None = None,
        seed: int = 0,
        class_: int | str | None = None,
        conditions: Mapping[str, ArrayLike] | None = None,
        observed_as: Sequence[tuple[str, Sequence[tuple[str, int]]]] | None = None,
        lerobot_config: str | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        timesteps: list[float] | None = None,
        mu: float | None = None,
        guidance: float | None = None,
        threads: int = 1,
    ) -> Policy:
        """A policy of a model whose samples are plans, actions of shape (T, D).

        n_obs_steps: the control steps whose observations a plan is made of; 1, or what the config.json says.
        n_action_steps: the control steps from one plan to the next, which is how many actions of each are carried out; half
            of those that are not of the past, or what the config.json says.
        first_action: which action of a plan is for the step of its latest observation: n_obs_steps - 1 if not given.
        timing: "synchronous" (a plan is made in act when the last one's actions are carried out), "asynchronous" (on a thread
            of its own, while the last one goes on), or as if a plan took `delay` control steps: "simulated" (the last one
            goes on meanwhile) or "waiting" (the robot stands still). All but "asynchronous" give the same actions for the
            same seed and observations.
        delay: the control steps that a simulated plan takes.
        joint: how a plan is joined to the last one: "switch" (not at all), "inpaint", "chunk" (real-time chunking), or
            "prefix" (the same as a network of a time for each action was trained for it).
        jacobian: how chunking has the network's derivative: "difference", which doubles the network calls, or "diagonal",
            which costs nothing and holds plans too tightly.
        most_guidance: the paper's beta, the greatest weight of chunking's guidance.
        warm_start: starts each plan from the last one, by this share of the steps, above 0 to 1.
        ensemble: averages plans that overlap with the weights exp(-ensemble * i), i = 0 for the oldest; 0.01 in ACT.
        when_dry: what the action is when no plan has one: "hold" (the last one again, the default), "error", or an action.
        stale_after: the age in control steps from above which an observation makes no plan.
        budget: seconds after which a plan is cut short.
        expected_delay: the control steps that a plan is expected to take before one was measured (asynchronous).
        seed: plan k is that of (seed, k).
        conditions: those that are no observations but the same for all plans.
        observed_as: conditions that are made of several arrays of a step: [("global_cond", [("state", 6), ("goal", 3)])].
        lerobot_config: the text of a LeRobot policy's config.json; one beside the model's file is read without this.
        The others are as for Generator.
        """

    def act(
        self,
        observation: Mapping[str, ArrayLike]
        | None,
        *,
        age: int = 0,
    ) -> NDArray[np.float32]:
        """The action of the next control step. To be called once a step, without holding Python's lock.

        observation: arrays of this step alone, by name; None for a dropped frame, for which the last one stands.
        age: how many control steps ago it was taken.

        An observation that is not what the network takes is a ValueError, after which nothing has changed. A plan that
        failed is an exception, once; the step has then passed, and `action` is what is to be done all the same.
        """

    def prime(
        self,
        observation: Mapping[
            str, ArrayLike
        ],
        *,
        age: int = 0,
    ) -> None:
        """Makes a first plan and waits for it: before the loop begins, so that its first step has an action."""

    def reset(self, seed: int) -> None:
        """Begins anew, as at the start of an episode. Plans are those of (seed, k), from k = 0."""

    @property
    def action(self) -> NDArray[np.float32]:
        """The latest action; zeros before the first."""

    @property
    def state(self) -> str | None:
        """What the latest step came to: "planned", "dropped", "late", "stale", "waiting" or "dry"."""

    @property
    def plan(self) -> int | None:
        """The number of the plan that the latest action is of."""

    @property
    def place(self) -> int:
        """Which of the plan's actions it is: the control steps from the plan's observation to the action."""

    @property
    def plan_shape(self) -> tuple[int, int]:
        """The actions of a plan, and the numbers of an action."""

    @property
    def stats(self) -> Stats: ...
