"""Episodes in closed loop: edgegen's policy acts, Meta-World answers."""

import edgegen
import numpy as np

from tasks import EPISODE_SEEDS, MOST_STEPS, Task


def episode(task, policy, seed):
    """Success, steps, and the squares of the actions' second differences: where a plan begins, and elsewhere."""
    policy.reset(seed)
    observation = task.reset(EPISODE_SEEDS + seed)
    # The robot stands still until its first plan is there, whatever the delay.
    policy.prime({"global_cond": observation})
    actions, plans, success = [], [], False
    while not success and len(actions) < MOST_STEPS:
        action = np.clip(policy.act({"global_cond": observation}), -1, 1)
        standing = policy.state in ("waiting", "dry")
        if standing:
            # An action moves the hand by so much: to stand still is to move by nothing, the fingers as they are.
            action = np.append(np.zeros(3), action[3])
        observation, success = task.step(action)
        actions.append(action)
        plans.append((policy.plan, standing))
    return success, len(actions), *second_differences(np.array(actions), plans)


def second_differences(actions, plans):
    squares = np.sum((actions[2:] - 2 * actions[1:-1] + actions[:-2]) ** 2, axis=1)
    # A second difference is of three actions, at a border if they are not all of one plan. Standing still is of none.
    border = np.array([plans[i] != plans[i - 2] for i in range(2, len(plans))], dtype=bool)
    return squares[border].tolist(), squares[~border].tolist()


def evaluate(model, name, cell, episodes):
    """One task's row of a cell: sums, so that rows can be added."""
    policy = edgegen.Policy(
        edgegen.Model(str(model)),
        n_obs_steps=1,
        n_action_steps=cell["actions"],
        steps=cell["calls"],
        sampler="ddim",
        timing=cell["timing"],
        delay=cell["delay"],
        joint=cell["joint"],
        jacobian=cell["jacobian"],
    )
    task, rows = Task(name), []
    for seed in range(episodes):
        rows.append(episode(task, policy, seed))
    at_border, elsewhere = ([x for row in rows for x in row[i]] for i in (2, 3))
    return {
        "episodes": episodes,
        "succeeded": [int(row[0]) for row in rows],
        "steps": [row[1] for row in rows],
        "border": [len(at_border), float(sum(at_border))],
        "elsewhere": [len(elsewhere), float(sum(elsewhere))],
    }
