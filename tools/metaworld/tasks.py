"""The tasks: Meta-World's, their goals seen and new in every episode, and its scripted experts' demonstrations."""

import warnings

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

# The experts' gains make actions that the environments clip, as they say at every step.
warnings.filterwarnings("ignore", message="Constant")

TASKS = [
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "window-open-v3",
]
MOST_STEPS = 200
# A demonstration goes on a little after success, so that the policy learns to stay there.
STEPS_AFTER_SUCCESS = 5
EPISODE_SEEDS = 1_000_000  # Demonstrations count up from 0, so no episode of the evaluation is one of them.


class Task:
    """One environment. Its observation is Meta-World's 39 numbers, and which of the tasks it is."""

    def __init__(self, name):
        self.name = name
        self.one_hot = (np.array(TASKS) == name).astype(np.float32)
        self.env = ALL_V3_ENVIRONMENTS[name]()
        # What MT1's set_task sets, but for the frozen goal: each reset draws one of the same range, by the seed.
        self.env._partially_observable = False
        # The range that observations are clipped to: cached while the goal was hidden, it would make the goal 0.
        self.env.__dict__.pop("sawyer_observation_space", None)
        self.env._freeze_rand_vec = False
        self.env._set_task_called = True
        self.env.seeded_rand_vec = True

    def reset(self, seed):
        self.env.seed(seed)
        self.seen, _ = self.env.reset()
        return self.observation()

    def step(self, action):
        """The next observation, and whether the task is done."""
        self.seen, _, _, _, info = self.env.step(np.asarray(action, dtype=np.float32))
        return self.observation(), bool(info["success"])

    def observation(self):
        return np.concatenate([self.seen.astype(np.float32), self.one_hot])


def demonstrate(name, count, noise):
    """Successful episodes of the expert, each (actions, observations), and how many were tried.

    What is carried out has noise, what is recorded has none: so the policy sees states that its own errors lead to, and
    what to do there (arXiv 1703.09327).
    """
    task, expert = Task(name), ENV_POLICY_MAP[name]()
    episodes, tries = [], 0
    while len(episodes) < count:
        if tries >= 4 * count:
            raise SystemExit(f"{name}: the expert succeeded in {len(episodes)} of {tries} episodes, which is too few")
        random = np.random.default_rng([tries, TASKS.index(name)])
        observation, actions, observations, left = task.reset(tries), [], [], None
        for _ in range(MOST_STEPS):
            action = np.clip(expert.get_action(task.seen), -1, 1).astype(np.float32)
            actions.append(action)
            observations.append(observation)
            trembling = action + np.append(random.normal(0, noise, 3), 0)
            observation, success = task.step(np.clip(trembling, -1, 1))
            if left is None and success:
                left = STEPS_AFTER_SUCCESS
            elif left is not None:
                left -= 1
            if left == 0:
                episodes.append((np.array(actions), np.array(observations)))
                break
        tries += 1
    return episodes, tries
