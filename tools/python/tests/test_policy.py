"""A policy gives the actions of its plans, by the names that Python has for what the library does."""

import time
from pathlib import Path

import numpy as np
import pytest

import edgegen

PUSH = Path(__file__).parents[3] / "examples/policy/push.onnx"
SAMPLING = {"steps": 2, "sampler": "ddim"}


@pytest.fixture(scope="module")
def model():
    return edgegen.Model(PUSH)


def seen(step):
    return np.array([0.15 + 0.02 * step, -0.02 * step, 0.6, 0.1])


def plan(model, index, before, now):
    stacked = np.concatenate([seen(before), seen(now)]).astype(np.float32)
    return edgegen.Generator(model, **SAMPLING).generate(7, index, conditions={"global_cond": stacked})


def test_a_simulated_delay_is_deterministic_and_drops_what_is_past(model):
    policy = edgegen.Policy(model, n_obs_steps=2, n_action_steps=3, timing="simulated", delay=2, seed=7, **SAMPLING)
    assert policy.plan_shape == (16, 2)
    for _ in range(2):
        actions = [policy.act({"global_cond": seen(step)}) for step in range(6)]
        assert (policy.plan, policy.place, policy.state) == (1, 2, "planned")
        assert actions[0].shape == (2,) and actions[0].dtype == np.float32
        np.testing.assert_array_equal(actions[:5], plan(model, 0, 0, 0)[1:6])
        np.testing.assert_array_equal(actions[5], plan(model, 1, 2, 3)[3])
        np.testing.assert_array_equal(actions[5], policy.action)
        assert (policy.stats.steps, policy.stats.plans, policy.stats.longest_delay) == (6, 2, 2)
        policy.reset(7)
        assert (policy.state, policy.stats.steps) == (None, 0)


def test_an_asynchronous_policy_plans_meanwhile(model):
    policy = edgegen.Policy(model, n_obs_steps=2, n_action_steps=2, timing="asynchronous", joint="chunk", **SAMPLING)
    policy.prime({"global_cond": seen(0)})
    for step in range(60):
        assert np.isfinite(policy.act({"global_cond": seen(step)})).all()
        time.sleep(0.003)
    assert policy.stats.plans > 5 and policy.stats.delay >= 1, policy.stats
    assert "plans=" in repr(policy.stats)


def test_frames_are_dropped_and_old_ones_make_no_plan(model):
    policy = edgegen.Policy(model, n_obs_steps=2, n_action_steps=2, stale_after=1, **SAMPLING)
    policy.act({"global_cond": seen(0)})
    states = []
    for _ in range(15):
        policy.act(None)
        states.append(policy.state)
    assert states == ["dropped"] + ["stale"] * 13 + ["dry"]
    policy.act({"global_cond": seen(3)}, age=1)
    assert (policy.state, policy.plan, policy.place) == ("planned", 1, 1)


def test_conditions_are_made_of_several_observations(model):
    parts = [("global_cond", [("hand", 2), ("disc", 2)])]
    policy = edgegen.Policy(model, n_obs_steps=2, n_action_steps=3, observed_as=parts, seed=7, **SAMPLING)
    action = policy.act({"disc": seen(0)[2:], "hand": seen(0)[:2]})
    np.testing.assert_array_equal(action, plan(model, 0, 0, 0)[1])


@pytest.mark.parametrize("when_dry", ["hold", "error", np.array([0.25, -0.5])])
def test_a_queue_runs_dry(model, when_dry):
    policy = edgegen.Policy(model, n_obs_steps=2, timing="simulated", delay=99, when_dry=when_dry, **SAMPLING)
    actions = [policy.act({"global_cond": seen(step)}) for step in range(15)]
    if isinstance(when_dry, str) and when_dry == "error":
        with pytest.raises(edgegen.EdgegenError, match="run dry"):
            policy.act(None)
        np.testing.assert_array_equal(policy.action, actions[-1])
    else:
        expected = actions[-1] if isinstance(when_dry, str) else when_dry
        np.testing.assert_array_equal(policy.act(None), expected.astype(np.float32))
        assert policy.state == "dry"


def test_a_failed_plan_is_an_exception_and_the_last_plan_goes_on(model):
    policy = edgegen.Policy(model, n_obs_steps=2, n_action_steps=1, **SAMPLING)
    policy.act({"global_cond": seen(0)})
    with pytest.raises(ValueError, match="must be finite"):
        policy.act({"global_cond": np.full(4, 3e38)})
    # its next action
    np.testing.assert_array_equal(policy.action, edgegen.Generator(model, **SAMPLING).generate(
        0, 0, conditions={"global_cond": np.tile(seen(0), 2).astype(np.float32)}
    )[2])
    assert policy.stats.failed == 1 and np.isfinite(policy.action).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"timing": "late"}, "no timing 'late'"),
        ({"delay": 3}, "delay is for"),
        ({"joint": "glue"}, "no joint 'glue'"),
        ({"joint": "chunk", "jacobian": "exact"}, "no jacobian 'exact'"),
        ({"joint": "chunk", "most_guidance": 0.0}, "above 0"),
        ({"n_obs_steps": 3}, "not 3 observations"),
        ({"when_dry": "stop"}, "not 'stop'"),
        ({"when_dry": np.zeros(3)}, "3 numbers"),
        ({"budget": -1.0}, "budget"),
        ({"warm_start": 2.0}, "at most 1"),
        ({"lerobot_config": '{"horizon": 8}'}, "horizon of 8"),
    ],
)
def test_what_is_wrong_is_told(model, given, words):
    with pytest.raises(ValueError, match=words):
        edgegen.Policy(model, **{"n_obs_steps": 2, **given})


@pytest.mark.parametrize(
    ("observation", "error", "words"),
    [
        ({}, ValueError, "lacks global_cond"),
        ({"global_cond": np.zeros(5)}, ValueError, "5 numbers, but must have 4"),
        ({"global_cond": np.array([0, np.nan, 0, 0])}, ValueError, "element 1 is NaN"),
        ({"global_cond": "left"}, TypeError, "must be numbers"),
        ({"global_cond": np.zeros(4), "image": np.zeros(2)}, ValueError, "nothing called 'image'"),
    ],
)
def test_what_is_no_observation_is_told(model, observation, error, words):
    policy = edgegen.Policy(model, n_obs_steps=2)
    with pytest.raises(error, match=words):
        policy.act(observation)
    assert policy.stats.steps == 0
