"""The wheel gives what the library gives, and what is wrong comes back as an exception of one line."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edgegen

MODELS = Path(__file__).parents[3] / "tests/fixtures/models"


@pytest.fixture(scope="module")
def model():
    return edgegen.Model.embedded()


def test_a_model_describes_itself(model):
    assert model.sample_shape == (1, 28, 28)
    assert model.value_range == (-1.0, 1.0)
    assert model.classes[8] == "Bag"
    assert [(i.name, i.role) for i in model.inputs] == [
        ("sample", "sample"),
        ("timestep", "time"),
        ("class_labels", "class"),
    ]
    assert model.engine.startswith("plan")


def test_a_sample_depends_on_seed_index_and_class(model):
    generator = edgegen.Generator(model, steps=4)
    bag = generator.generate(7, 3, class_="Bag")
    assert bag.shape == (1, 28, 28) and bag.dtype == np.float32 and np.isfinite(bag).all()
    np.testing.assert_array_equal(bag, generator.generate(7, 3, class_=8))
    assert (bag != generator.generate(7, 3, class_=0)).any()
    assert (bag != generator.generate(8, 3, class_=8)).any()
    outcome = generator.outcome
    assert (outcome.ending, outcome.steps, outcome.nfe) == ("complete", 4, 4)


def test_threads_inside_a_call_change_no_bit(model):
    one, two = (edgegen.Generator(model, steps=3, threads=n).generate(5) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_out_is_filled_and_returned(model):
    generator = edgegen.Generator(model, steps=2)
    out = np.zeros((1, 28, 28), np.float32)
    assert generator.generate(1, out=out) is out
    np.testing.assert_array_equal(out, generator.generate(1))


def test_noise_and_init_are_where_runs_start(model):
    noise = np.random.default_rng(0).standard_normal((1, 28, 28), np.float32)
    generator = edgegen.Generator(model, steps=4, sampler="ddim")
    first = generator.generate(0, noise=noise, class_=1)
    np.testing.assert_array_equal(first, generator.generate(1, noise=noise, class_=1))
    near = edgegen.Generator(model, steps=10, sampler="ddim", spacing="leading")
    assert np.abs(near.generate(0, init=first, strength=0.2, class_=1) - first).mean() < 0.2
    assert np.abs(near.generate(0, init=first, sigma=0.05, class_=1) - first).mean() < 0.2
    for start in ({"init": first}, {"strength": 0.5}, {"init": first, "strength": 0.5, "sigma": 0.5}):
        with pytest.raises(ValueError, match="either strength or sigma"):
            near.generate(0, **start)
    with pytest.raises(ValueError, match="one start"):
        near.generate(0, init=first, strength=0.5, noise=noise)


def test_a_callback_ends_a_run_and_its_exceptions_come_through(model):
    seen = []

    def on_step(step, steps, x0):
        seen.append((step, steps, x0.shape))
        return step == 2

    generator = edgegen.Generator(model, steps=5)
    generator.generate(0, on_step=on_step)
    assert seen == [(1, 5, (1, 28, 28)), (2, 5, (1, 28, 28))]
    assert generator.outcome.ending == "callback"

    def fails(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        generator.generate(0, on_step=fails)
    assert generator.generate(0).shape == (1, 28, 28)


def test_a_deadline_leaves_the_best_by_then(model):
    generator = edgegen.Generator(model, steps=1000, sampler="ddim")
    sample = generator.generate(0, deadline=0.01)
    assert np.isfinite(sample).all()
    assert generator.outcome.ending == "deadline" and generator.outcome.steps < 1000


def test_conditions_are_arrays_or_numbers():
    model = edgegen.Model(MODELS / "sequence.onnx")
    generator = edgegen.Generator(model, steps=2)
    cond = np.float32([[0.1, 0.2, 0.3]])
    sample = generator.generate(0, conditions={"global_cond": cond}, class_=1)
    assert sample.shape == model.sample_shape
    with pytest.raises(ValueError, match="takes 3"):
        generator.generate(0, conditions={"global_cond": np.float32([1, 2])}, class_=1)
    with pytest.raises(ValueError, match="needs the condition global_cond"):
        generator.generate(0, class_=1)
    with pytest.raises(ValueError, match="no condition 'other'"):
        generator.generate(0, conditions={"other": cond}, class_=1)
    for same in (np.asfortranarray(cond), cond.astype(np.float64), cond.tolist(), np.repeat(cond, 2, 1)[:, ::2]):
        np.testing.assert_array_equal(sample, generator.generate(0, conditions={"global_cond": same}, class_=1))
    whole = generator.generate(0, conditions={"global_cond": [[1, 2, 3]]}, class_=1)
    floats = generator.generate(0, conditions={"global_cond": np.float16([[1, 2, 3]])}, class_=1)
    np.testing.assert_array_equal(whole, floats)
    for unlike in ("text", None, [[1], [1, 2]], np.array([1j])):
        with pytest.raises(TypeError, match="global_cond must be numbers"):
            generator.generate(0, conditions={"global_cond": unlike}, class_=1)
    with pytest.raises(ValueError, match="cannot tell apart"):
        generator.generate(0, conditions={"global_cond": [[1, 2, 2**24 + 1]]}, class_=1)


def test_a_class_that_is_not_given_is_drawn():
    generator = edgegen.Generator(edgegen.Model(MODELS.parents[2] / "models/fashion-mnist.onnx"), steps=1)
    drawn = [generator.generate(7, index) for index in range(6)]
    of_each = [[generator.generate(7, index, class_=c) for c in range(10)] for index in range(6)]
    classes = [[(d == s).all() for s in samples].index(True) for d, samples in zip(drawn, of_each)]
    assert len(set(classes)) > 1
    none = generator.generate(7, 0, class_="none")
    assert all((none != sample).any() for sample in of_each[0])


def test_a_schedule_is_a_dict_text_or_a_path(tmp_path):
    import json

    config = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "prediction_type": "epsilon"}
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(config))
    model = MODELS.parents[2] / "models/fashion-mnist.onnx"
    samples = [
        edgegen.Generator(
            edgegen.Model(model, scheduler_config=given), steps=2, sampler="ddim", spacing="trailing"
        ).generate(1, class_=3)
        for given in (config, json.dumps(config), path, str(path))
    ]
    assert all((samples[0] == sample).all() for sample in samples)
    with pytest.raises(TypeError, match="a dict, JSON text or a path"):
        edgegen.Model(model, scheduler_config=7)
    with pytest.raises((OSError, ValueError, edgegen.EdgegenError), match="none.json"):
        edgegen.Model(model, scheduler_config="none.json")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: edgegen.Model("none.onnx"), OSError, "none.onnx"),
        (lambda m: edgegen.Model.from_bytes(b"junk"), edgegen.EdgegenError, "not an ONNX model"),
        (lambda m: edgegen.Model.from_bytes(b""), edgegen.EdgegenError, "no graph"),
        (lambda m: edgegen.Model("x", inputs={"noise": "x"}), ValueError, "no role 'noise'"),
        (lambda m: edgegen.Model("x", scheduler_config="{"), (ValueError, edgegen.EdgegenError), "scheduler configuration"),
        (lambda m: edgegen.Generator(m, steps=0), ValueError, "steps"),
        (lambda m: edgegen.Generator(m, threads=0), ValueError, "thread"),
        (lambda m: edgegen.Generator(m, sampler="best"), ValueError, "best"),
        (lambda m: edgegen.Generator(m).generate(0, class_="cat"), ValueError, "unknown class 'cat'"),
        (lambda m: edgegen.Generator(m).generate(0, class_=1.5), TypeError, "an index, a name"),
        (lambda m: edgegen.Generator(m).generate(0, noise=np.zeros((28, 28), np.float32)), ValueError, "noise must"),
        (lambda m: edgegen.Generator(m).generate(0, out=np.zeros((28, 28), np.float32)), ValueError, "out must"),
        (lambda m: edgegen.Generator(m).generate(0, deadline=-1.0), ValueError, "deadline"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(model, call, error, words):
    with pytest.raises(error, match=words) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_other_threads_run_meanwhile_and_a_generator_in_use_is_told(model):
    generator = edgegen.Generator(model, steps=1000, sampler="ddim")
    running, told = threading.Event(), []

    def on_step(step, steps, x0):
        running.set()

    thread = threading.Thread(target=lambda: generator.generate(0, on_step=on_step))
    thread.start()
    running.wait(10)
    try:
        generator.generate(0)
    except RuntimeError as error:
        told.append(str(error))
    count, start = 0, time.monotonic()
    while thread.is_alive() and time.monotonic() - start < 10:
        count += 1
    thread.join()
    assert told and "another call" in told[0]
    assert count > 0


INPUTS = MODELS.parent / "inputs"


def test_inputs_and_outputs_are_told_by_the_options():
    with pytest.raises(edgegen.EdgegenError, match="say what it is told by time_as"):
        edgegen.Generator(edgegen.Model(INPUTS / "time_gammas.onnx"))
    assert edgegen.Generator(edgegen.Model(INPUTS / "time_gammas.onnx", time_as="alpha-bar"), steps=2).generate().shape == (2, 5, 5)
    with pytest.raises(ValueError, match="there is no 'beta'"):
        edgegen.Model(INPUTS / "time_gammas.onnx", time_as="beta")
    with pytest.raises(edgegen.EdgegenError, match="say what it is in join"):
        edgegen.Model(INPUTS / "join_open.onnx")
    assert edgegen.Model(INPUTS / "shape_none.onnx", inputs={"time": "none"}).sample_shape == (2, 5, 4)
    with pytest.raises(ValueError, match="no output 'none'"):
        edgegen.Model(INPUTS / "output_of_two.onnx", output="none")
    model = edgegen.Model(INPUTS / "condition_open.onnx", sample_shape=(2, 5, 4), condition_shapes={"tokens": (6, 3)})
    assert [i.shape for i in model.inputs if i.name == "tokens"] == [(1, 6, 3)]


def test_conditions_may_be_whole_numbers_and_truth_values():
    for name, values in [("condition_bool", [True, False, True]), ("condition_int64", [-3, 100_000, 2])]:
        generator = edgegen.Generator(edgegen.Model(INPUTS / f"{name}.onnx"), steps=2)
        by_floats = generator.generate(conditions={"key": np.array([values], np.float32)})
        np.testing.assert_array_equal(generator.generate(conditions={"key": np.array([values])}), by_floats)
    with pytest.raises(ValueError, match="cannot tell apart"):
        generator.generate(conditions={"key": np.array([[2**24 + 1, 0, 0]])})


def test_latents_become_pictures():
    model = edgegen.Model(INPUTS / "join_open.onnx", join=[("mask", (1, 3, 3)), ("sample", None), ("known", (2, 3, 3))])
    conditions = {"mask": np.full((1, 3, 3), 0.5, np.float32), "known": np.full((2, 3, 3), 0.25, np.float32)}
    latents = edgegen.Generator(model, steps=2).generate(conditions=conditions)
    decoder = edgegen.Decoder(INPUTS / "vae_decoder", model)
    assert decoder.picture_shape == (3, 6, 6)
    picture = decoder.decode(latents)
    assert picture.shape == (3, 6, 6) and np.abs(picture).max() <= 1
    assert (picture != edgegen.Decoder(INPUTS / "vae_decoder", model, scale=2.0, shift=1.0).decode(latents)).any()
    with pytest.raises(ValueError, match="a finite number that is not 0"):
        edgegen.Decoder(INPUTS / "vae_decoder", model, scale=0.0)
