//! The C API: it gives what the library gives, and what C may get wrong comes back as a status, never as a crash.
//! `tools/capi/header.sh --check` checks that the header is that of the source.
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "these are C programs: every call is an unsafe one, of the same promise"
)]

use edgegen::capi::*;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::path::Path;
use std::ptr::{null, null_mut};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A status with its message.
#[track_caller]
fn failed(status: edgegen_status, expected: edgegen_status, error: &edgegen_error, words: &str) {
    // SAFETY: every call writes a message that ends in a zero.
    let message = unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap();
    assert_eq!((status, error.status), (expected, expected), "{message}");
    assert!(message.contains(words), "{message:?} does not say {words:?}");
}

fn error() -> edgegen_error {
    edgegen_error { status: edgegen_status::OK, message: [0; EDGEGEN_MESSAGE_SIZE] }
}

fn fixture(name: &str) -> CString {
    CString::new(root().join("tests/fixtures/models").join(name).to_str().unwrap()).unwrap()
}

fn open(name: &str) -> *mut edgegen_model {
    let mut model = null_mut();
    // SAFETY: all pointers are to what they should be.
    let status = unsafe { edgegen_model_open(fixture(name).as_ptr(), null(), &mut model, null_mut()) };
    assert_eq!(status, edgegen_status::OK);
    model
}

fn prepare(model: *const edgegen_model, steps: usize) -> *mut edgegen_generator {
    let (mut options, mut generator) = (MaybeUninit::uninit(), null_mut());
    // SAFETY: all pointers are to what they should be.
    unsafe {
        assert_eq!(edgegen_options_init(model, options.as_mut_ptr(), null_mut()), edgegen_status::OK);
        (*options.as_mut_ptr()).steps = steps;
        assert_eq!(edgegen_prepare(model, options.as_ptr(), &mut generator, null_mut()), edgegen_status::OK);
    }
    generator
}

/// The condition that `sequence.onnx` takes: zeros.
struct Conditions([edgegen_condition; 1]);

static ZEROS: [f32; 3] = [0.0; 3];
static CONDITIONS: Conditions =
    Conditions([edgegen_condition { name: c"global_cond".as_ptr(), values: (&raw const ZEROS).cast(), len: 3 }]);

// SAFETY: what it points to is never written.
unsafe impl Sync for Conditions {}

fn request() -> edgegen_request {
    // SAFETY: all zeros are a request, as its documentation promises.
    let zeros: edgegen_request = unsafe { zeroed() };
    edgegen_request { conditions: CONDITIONS.0.as_ptr(), num_conditions: 1, ..zeros }
}

#[test]
fn a_sample_is_that_of_the_library() {
    use edgegen::{Model, Request};
    let path = root().join("tests/fixtures/models/sequence.onnx");
    let model = Model::open(path).unwrap();
    let (mut expected, mut near, mut of_drawn) = ([0.0; 10], [0.0; 10], [0.0; 10]);
    let mut generator = model.generator().steps(6).build().unwrap();
    let asked = || Request::new(9, 4).class(2).condition("global_cond", &[0.5, -1.0, 2.0]);
    generator.run_into(&asked(), &mut expected).unwrap();
    generator.run_into(&asked().near(&expected, 0.5), &mut near).unwrap();
    generator.run_into(&Request::new(9, 4).condition("global_cond", &[0.5, -1.0, 2.0]), &mut of_drawn).unwrap();

    let handle = open("sequence.onnx");
    let mut generator = prepare(handle, 6);
    let values = [0.5, -1.0, 2.0];
    let conditions = [edgegen_condition { name: c"global_cond".as_ptr(), values: values.as_ptr(), len: 3 }];
    let request = edgegen_request {
        seed: 9,
        index: 4,
        class_index: 2,
        conditions: conditions.as_ptr(),
        num_conditions: 1,
        ..request()
    };
    let (mut out, mut beside, mut outcome, mut handle) = ([0.0f32; 10], [0.0; 10], MaybeUninit::uninit(), handle);
    // SAFETY: all pointers are to what they should be.
    unsafe {
        // a generator keeps the model that it was made from
        assert_eq!(edgegen_model_free(&mut handle, null_mut()), edgegen_status::OK);
        assert!(handle.is_null());
        let drawn = edgegen_request { class_index: EDGEGEN_CLASS_DRAWN, ..request };
        let status = edgegen_generate(generator, &drawn, out.as_mut_ptr(), 10, outcome.as_mut_ptr(), null_mut());
        assert_eq!((status, out), (edgegen_status::OK, of_drawn));
        let status = edgegen_generate(generator, &request, out.as_mut_ptr(), 10, outcome.as_mut_ptr(), null_mut());
        assert_eq!(status, edgegen_status::OK);
        let outcome = outcome.assume_init();
        assert_eq!((outcome.ending, outcome.steps), (edgegen_ending::COMPLETE, 6));
        let close = edgegen_request { init: out.as_ptr(), init_len: 10, strength: 0.5, ..request };
        let status = edgegen_generate(generator, &close, beside.as_mut_ptr(), 10, null_mut(), null_mut());
        assert_eq!(status, edgegen_status::OK);
        assert_eq!(edgegen_generator_free(&mut generator, null_mut()), edgegen_status::OK);
        assert_eq!(edgegen_generator_free(&mut generator, null_mut()), edgegen_status::OK);
    }
    assert_eq!((out, beside), (expected, near));
}

#[test]
fn a_model_describes_itself() {
    let mut model = open("sequence.onnx");
    let (mut info, mut input, mut name, mut index) = (MaybeUninit::uninit(), MaybeUninit::uninit(), null(), 0);
    let (mut bytes, mut error) = (0, error());
    // SAFETY: all pointers are to what they should be.
    unsafe {
        assert_eq!(edgegen_model_describe(model, info.as_mut_ptr(), null_mut()), edgegen_status::OK);
        let info = info.assume_init();
        assert_eq!((&info.sample_shape[..info.sample_rank], info.sample_len), (&[5, 2][..], 10));
        assert_eq!((info.inputs, info.classes, info.takes_class), (4, 3, true));
        assert_eq!(edgegen_model_input(model, 2, input.as_mut_ptr(), null_mut()), edgegen_status::OK);
        let input: edgegen_input = input.assume_init();
        assert_eq!((CStr::from_ptr(input.name), input.role), (c"global_cond", edgegen_role::CONDITION));
        assert_eq!((&input.shape[..input.rank], input.len), (&[1, 3][..], 3));
        assert_eq!(CStr::from_ptr(input.element_type), c"F32");
        assert_eq!(edgegen_model_class_index(model, c"PULL".as_ptr(), &mut index, null_mut()), edgegen_status::OK);
        assert_eq!(index, 1);
        assert_eq!(edgegen_model_class_name(model, 1, &mut name, null_mut()), edgegen_status::OK);
        assert!(CStr::from_ptr(name).to_str().unwrap().eq_ignore_ascii_case("pull"));
        assert_eq!(edgegen_memory_needed(model, null(), &mut bytes, null_mut()), edgegen_status::OK);
        assert!(bytes >= 2 * 10 * 4, "{bytes}");
        let status = edgegen_model_input(model, 4, MaybeUninit::uninit().as_mut_ptr(), &mut error);
        failed(status, edgegen_status::INVALID_ARGUMENT, &error, "has 4");
        let status = edgegen_model_class_name(model, 3, &mut name, &mut error);
        failed(status, edgegen_status::INVALID_ARGUMENT, &error, "has 3");
        edgegen_model_free(&mut model, null_mut());
    }
}

#[test]
fn null_pointers_and_wrong_sizes_are_told() {
    use edgegen_status::*;
    let (mut error, mut model, mut no_generator) = (error(), null_mut(), null_mut());
    let mut sequence = open("sequence.onnx");
    let mut generator = prepare(sequence, 3);
    let mut out = [7.0f32; 10];
    // SAFETY: what is not null is what it should be.
    unsafe {
        failed(edgegen_model_open(null(), null(), &mut model, &mut error), NULL_POINTER, &error, "path");
        failed(edgegen_model_open(c"x".as_ptr(), null(), null_mut(), &mut error), NULL_POINTER, &error, "model");
        failed(edgegen_model_open(c"/no/such".as_ptr(), null(), &mut model, &mut error), IO, &error, "/no/such");
        failed(edgegen_model_open(c"\xff".as_ptr(), null(), &mut model, &mut error), INVALID_ARGUMENT, &error, "UTF-8");
        failed(edgegen_model_from_memory(null(), 5, null(), &mut model, &mut error), NULL_POINTER, &error, "bytes");
        let huge = edgegen_model_from_memory(out.as_ptr().cast(), usize::MAX, null(), &mut model, &mut error);
        failed(huge, WRONG_SIZE, &error, "bytes");
        failed(edgegen_model_describe(null(), null_mut(), &mut error), NULL_POINTER, &error, "model");
        failed(edgegen_model_describe(sequence, null_mut(), &mut error), NULL_POINTER, &error, "info");
        failed(edgegen_prepare(null(), null(), &mut no_generator, &mut error), NULL_POINTER, &error, "model");
        failed(edgegen_prepare(sequence, null(), null_mut(), &mut error), NULL_POINTER, &error, "generator");
        assert!(model.is_null() && no_generator.is_null());
        assert_eq!(edgegen_model_free(null_mut(), &mut error), OK);
        assert_eq!(edgegen_model_free(&mut model, &mut error), OK);

        let good = request();
        let out_pointer = out.as_mut_ptr();
        let mut generate =
            |g, r: *const edgegen_request, out, len| edgegen_generate(g, r, out, len, null_mut(), &mut error);
        let cases = [
            (generate(null_mut(), &good, out_pointer, 10), NULL_POINTER),
            (generate(generator, null(), out_pointer, 10), NULL_POINTER),
            (generate(generator, &good, null_mut(), 10), NULL_POINTER),
            (generate(generator, &good, out_pointer, 9), WRONG_SIZE),
            (generate(generator, &good, out_pointer, usize::MAX), WRONG_SIZE),
            (generate(generator, &edgegen_request { conditions: null(), ..request() }, out_pointer, 10), NULL_POINTER),
            (generate(generator, &edgegen_request { class_index: 3, ..request() }, out_pointer, 10), INVALID_ARGUMENT),
            (
                generate(
                    generator,
                    &edgegen_request { noise: out_pointer, noise_len: 3, ..request() },
                    out_pointer,
                    10,
                ),
                WRONG_SIZE,
            ),
            (
                generate(generator, &edgegen_request { num_conditions: 0, ..request() }, out_pointer, 10),
                INVALID_ARGUMENT,
            ),
            (generate(generator, &edgegen_request { strength: 0.5, ..request() }, out_pointer, 10), INVALID_ARGUMENT),
            (
                generate(generator, &edgegen_request { init: out_pointer, init_len: 10, ..request() }, out_pointer, 10),
                INVALID_ARGUMENT,
            ),
        ];
        for (i, (status, expected)) in cases.into_iter().enumerate() {
            assert_eq!(status, expected, "case {i}");
        }
        let conditions = |name: *const c_char, values: *const f32, len| edgegen_condition { name, values, len };
        let (three, finite) = ([f32::NAN; 3], [0.0; 3]);
        for (condition, expected, words) in [
            (conditions(null(), three.as_ptr(), 3), NULL_POINTER, "name"),
            (conditions(c"global_cond".as_ptr(), null(), 3), NULL_POINTER, "values"),
            (conditions(c"global_cond".as_ptr(), finite.as_ptr(), 2), WRONG_SIZE, "takes 3"),
            (conditions(c"goal".as_ptr(), finite.as_ptr(), 3), INVALID_ARGUMENT, "global_cond"),
            (conditions(c"global_cond".as_ptr(), three.as_ptr(), 3), NOT_FINITE, "must be finite"),
        ] {
            let request = edgegen_request { conditions: &condition, num_conditions: 1, ..request() };
            let status = edgegen_generate(generator, &request, out.as_mut_ptr(), 10, null_mut(), &mut error);
            failed(status, expected, &error, words);
        }
        assert_eq!(out, [7.0; 10], "a failed call wrote to out");
        edgegen_generator_free(&mut generator, null_mut());
        edgegen_model_free(&mut sequence, null_mut());
    }
}

#[test]
fn threads_inside_a_call_change_no_bit() {
    let model = open("sequence.onnx");
    let samples = [1, 2, 3].map(|threads| {
        let (mut options, mut generator) = (MaybeUninit::uninit(), null_mut());
        let mut out = vec![0f32; 10];
        // SAFETY: all pointers are to what they should be.
        unsafe {
            assert_eq!(edgegen_options_init(model, options.as_mut_ptr(), null_mut()), edgegen_status::OK);
            (*options.as_mut_ptr()).threads = threads;
            assert_eq!(edgegen_prepare(model, options.as_ptr(), &mut generator, null_mut()), edgegen_status::OK);
            let status = edgegen_generate(generator, &request(), out.as_mut_ptr(), out.len(), null_mut(), null_mut());
            assert_eq!(status, edgegen_status::OK);
            assert_eq!(edgegen_generator_free(&mut generator, null_mut()), edgegen_status::OK);
        }
        out
    });
    assert!(samples[0].iter().any(|v| *v != 0.0));
    assert!(samples.iter().all(|s| *s == samples[0]));
    // SAFETY: it was opened above.
    unsafe { edgegen_model_free(&mut model.clone(), null_mut()) };
}

#[test]
fn options_out_of_range_are_told() {
    use edgegen_status::*;
    let (mut model, mut generator, mut error) = (open("sequence.onnx"), null_mut(), error());
    const RISING: [f64; 2] = [10.0, 90.0];
    let ok = || edgegen_options {
        steps: 4,
        sampler: null(),
        spacing: null(),
        guidance: 1.0,
        threads: 0,
        timesteps: null(),
        num_timesteps: 0,
        mu: null(),
    };
    for (options, expected, words) in [
        (edgegen_options { steps: 0, ..ok() }, INVALID_ARGUMENT, "step"),
        (edgegen_options { sampler: c"magic".as_ptr(), ..ok() }, INVALID_ARGUMENT, "magic"),
        (edgegen_options { spacing: c"wide".as_ptr(), ..ok() }, INVALID_ARGUMENT, "wide"),
        (edgegen_options { timesteps: RISING.as_ptr(), num_timesteps: 2, ..ok() }, INVALID_ARGUMENT, "must fall"),
        (edgegen_options { timesteps: RISING.as_ptr(), num_timesteps: 0, ..ok() }, INVALID_ARGUMENT, "begin at"),
        (edgegen_options { mu: RISING.as_ptr(), ..ok() }, INVALID_ARGUMENT, "use_dynamic_shifting"),
        (edgegen_options { guidance: f32::NAN, ..ok() }, INVALID_ARGUMENT, "guidance"),
    ] {
        // SAFETY: all pointers are to what they should be.
        let status = unsafe { edgegen_prepare(model, &options, &mut generator, &mut error) };
        failed(status, expected, &error, words);
        assert!(generator.is_null());
    }
    // SAFETY: as above.
    unsafe { edgegen_model_free(&mut model, null_mut()) };
}

#[test]
fn a_model_takes_no_more_memory_than_it_may() {
    let (mut model, mut error) = (null_mut(), error());
    // SAFETY: all zeros are options, as their documentation promises.
    let mut options: edgegen_model_options = unsafe { zeroed() };
    for (max_memory, opens) in [(1000, false), (64 << 20, true), (0, true)] {
        options.max_memory = max_memory;
        // SAFETY: all pointers are to what they should be.
        let status = unsafe { edgegen_model_open(fixture("sequence.onnx").as_ptr(), &options, &mut model, &mut error) };
        if opens {
            assert_eq!(status, edgegen_status::OK);
        } else {
            failed(status, edgegen_status::MODEL, &error, "allow more by the options' max_memory");
        }
        assert_eq!(model.is_null(), !opens);
        // SAFETY: null, or opened above.
        unsafe { edgegen_model_free(&mut model, null_mut()) };
    }
}

#[test]
fn what_is_no_handle_is_told() {
    let (mut error, mut model) = (error(), open("sequence.onnx"));
    let mut zeros = [0u64; 64];
    // SAFETY: where a handle should be there is memory that may be read.
    unsafe {
        let status = edgegen_model_describe(zeros.as_ptr().cast(), null_mut(), &mut error);
        failed(status, edgegen_status::BAD_HANDLE, &error, "model");
        let status = edgegen_model_describe(zeros.as_ptr().byte_add(1).cast(), null_mut(), &mut error);
        failed(status, edgegen_status::BAD_HANDLE, &error, "model");
        let (mut generator, mut out) = (zeros.as_mut_ptr().cast(), [0.0f32; 10]);
        let status = edgegen_generate(generator, &request(), out.as_mut_ptr(), 10, null_mut(), &mut error);
        failed(status, edgegen_status::BAD_HANDLE, &error, "generator");
        let status = edgegen_generator_free(&mut generator, &mut error);
        failed(status, edgegen_status::BAD_HANDLE, &error, "generator");
        // a model is no generator
        let status = edgegen_generate(model.cast(), &request(), out.as_mut_ptr(), 10, null_mut(), &mut error);
        failed(status, edgegen_status::BAD_HANDLE, &error, "generator");
        edgegen_model_free(&mut model, null_mut());
    }
}

/// A file in memory, cut anywhere or with any byte changed, is refused or read.
#[test]
fn corrupt_models_in_memory_are_told() {
    let whole = std::fs::read(root().join("tests/fixtures/models/sequence.onnx")).unwrap();
    let mut refused = 0;
    let mut open = |bytes: &[u8]| {
        let (mut model, mut error) = (null_mut(), error());
        // SAFETY: all pointers are to what they should be.
        let status = unsafe { edgegen_model_from_memory(bytes.as_ptr(), bytes.len(), null(), &mut model, &mut error) };
        assert_ne!(status, edgegen_status::INTERNAL);
        assert_eq!(status != edgegen_status::OK, model.is_null());
        refused += usize::from(model.is_null());
        // SAFETY: `model` is null or a handle.
        unsafe { edgegen_model_free(&mut model, null_mut()) };
    };
    (0..whole.len()).step_by(61).for_each(|end| open(&whole[..end]));
    for i in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[i] ^= 0x15;
        open(&changed);
    }
    assert!(refused > 20, "{refused}");
}

/// What a callback did and saw.
#[derive(Default)]
struct Seen {
    steps: usize,
    stop_at: usize,
    last_x0: Vec<f32>,
    inner: Option<(*mut edgegen_generator, edgegen_status)>,
}

unsafe extern "C" fn on_step(user: *mut c_void, progress: *const edgegen_progress) -> c_int {
    // SAFETY: `user` is the request's, and `progress` is good during the call.
    let (seen, progress) = unsafe { (&mut *user.cast::<Seen>(), &*progress) };
    seen.steps = progress.step;
    // SAFETY: as above.
    seen.last_x0 = unsafe { std::slice::from_raw_parts(progress.x0, progress.len) }.to_vec();
    if let Some((generator, status)) = &mut seen.inner {
        let mut out = [0.0f32; 10];
        // SAFETY: all pointers are to what they should be.
        *status = unsafe { edgegen_generate(*generator, &request(), out.as_mut_ptr(), 10, null_mut(), null_mut()) };
    }
    c_int::from(progress.step == seen.stop_at)
}

#[test]
fn a_callback_stops_a_run_and_cannot_enter_it_again() {
    let mut model = open("sequence.onnx");
    let mut generator = prepare(model, 8);
    let mut seen = Seen { stop_at: 3, inner: Some((generator, edgegen_status::OK)), ..Default::default() };
    let request = edgegen_request { on_step: Some(on_step), user: (&raw mut seen).cast(), ..request() };
    let (mut out, mut outcome) = ([0.0f32; 10], MaybeUninit::uninit());
    // SAFETY: all pointers are to what they should be.
    unsafe {
        let status = edgegen_generate(generator, &request, out.as_mut_ptr(), 10, outcome.as_mut_ptr(), null_mut());
        assert_eq!(status, edgegen_status::OK);
        let outcome = outcome.assume_init();
        assert_eq!((outcome.ending, outcome.steps), (edgegen_ending::CALLBACK, 3));
        assert_eq!((seen.steps, seen.inner.unwrap().1), (3, edgegen_status::BUSY));
        assert_eq!(out, *seen.last_x0, "the best by then is the estimate of x_0");
        edgegen_generator_free(&mut generator, null_mut());
        edgegen_model_free(&mut model, null_mut());
    }
}

/// Waits in the callback past the deadline, so that it strikes after one step however fast the machine is.
unsafe extern "C" fn sleep(_: *mut c_void, _: *const edgegen_progress) -> c_int {
    std::thread::sleep(std::time::Duration::from_millis(40));
    0
}

#[test]
fn a_deadline_leaves_the_best_by_then() {
    let mut model = open("sequence.onnx");
    let mut generator = prepare(model, 50);
    let request = edgegen_request { on_step: Some(sleep), deadline_us: 30_000, ..request() };
    let (mut out, mut outcome) = ([0.0f32; 10], MaybeUninit::uninit());
    // SAFETY: all pointers are to what they should be.
    unsafe {
        let status = edgegen_generate(generator, &request, out.as_mut_ptr(), 10, outcome.as_mut_ptr(), null_mut());
        assert_eq!(status, edgegen_status::OK);
        let outcome = outcome.assume_init();
        assert_eq!(outcome.ending, edgegen_ending::DEADLINE);
        assert!(outcome.steps <= 1, "{}", outcome.steps);
        edgegen_generator_free(&mut generator, null_mut());
        edgegen_model_free(&mut model, null_mut());
    }
}

struct Address(usize);

#[test]
fn generators_of_several_threads_agree_and_one_of_two_on_the_same_is_told() {
    let mut model = open("sequence.onnx");
    let address = Address(model as usize);
    let samples: Vec<[f32; 10]> = std::thread::scope(|scope| {
        let make = || {
            let mut generator = prepare(address.0 as *const edgegen_model, 5);
            let mut out = [0.0f32; 10];
            for _ in 0..20 {
                // SAFETY: all pointers are to what they should be.
                let status =
                    unsafe { edgegen_generate(generator, &request(), out.as_mut_ptr(), 10, null_mut(), null_mut()) };
                assert_eq!(status, edgegen_status::OK);
            }
            // SAFETY: as above.
            unsafe { edgegen_generator_free(&mut generator, null_mut()) };
            out
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(samples.iter().all(|s| *s == samples[0]));

    let mut generator = prepare(model, 50);
    let address = Address(generator as usize);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let request = edgegen_request { on_step: Some(sleep), deadline_us: 20_000, ..request() };
            let mut out = [0.0f32; 10];
            let generator = address.0 as *mut edgegen_generator;
            // SAFETY: all pointers are to what they should be.
            unsafe { edgegen_generate(generator, &request, out.as_mut_ptr(), 10, null_mut(), null_mut()) }
        });
        let (mut out, mut busy) = ([0.0f32; 10], 0);
        while !first.is_finished() {
            // SAFETY: as above.
            unsafe {
                let status = edgegen_generate(generator, &request(), out.as_mut_ptr(), 10, null_mut(), null_mut());
                assert!(matches!(status, edgegen_status::OK | edgegen_status::BUSY));
                busy += usize::from(status == edgegen_status::BUSY);
            }
        }
        let first = first.join().unwrap();
        assert!(busy > 0 || first == edgegen_status::BUSY);
    });
    // SAFETY: nobody uses them any more.
    unsafe {
        edgegen_generator_free(&mut generator, null_mut());
        edgegen_model_free(&mut model, null_mut());
    }
}

#[test]
fn versions_and_names_are_told() {
    assert_eq!(edgegen_abi_version(), EDGEGEN_ABI_VERSION);
    // SAFETY: these are static strings.
    unsafe {
        assert_eq!(CStr::from_ptr(edgegen_version()).to_str(), Ok(env!("CARGO_PKG_VERSION")));
        assert_eq!(CStr::from_ptr(edgegen_status_name(edgegen_status::BUSY as i32)), c"BUSY");
        assert_eq!(CStr::from_ptr(edgegen_status_name(-1)), c"unknown");
    }
}

fn network(name: &str) -> CString {
    CString::new(root().join("tests/fixtures/inputs").join(name).to_str().unwrap()).unwrap()
}

/// Opens a model by these options.
fn open_by(
    name: &str,
    options: &edgegen_model_options,
    error: &mut edgegen_error,
) -> (edgegen_status, *mut edgegen_model) {
    let mut model = null_mut();
    // SAFETY: all pointers are to what they should be.
    let status = unsafe { edgegen_model_open(network(name).as_ptr(), options, &mut model, error) };
    (status, model)
}

#[test]
fn inputs_and_outputs_are_told_by_the_options() {
    use edgegen_status::{INVALID_ARGUMENT, MODEL, OK};
    let mut error = error();
    // SAFETY: all zeros stand for what the file says.
    let options = || unsafe { zeroed::<edgegen_model_options>() };
    let (status, _) = open_by("join_inpainting.onnx", &options(), &mut error);
    failed(status, MODEL, &error, "say what it is in the options' joins");
    let (status, _) = open_by("shape_none.onnx", &options(), &mut error);
    failed(status, MODEL, &error, "name it in the options' time_input");
    let named = edgegen_model_options { output: c"none".as_ptr(), ..options() };
    let (status, _) = open_by("output_of_two.onnx", &named, &mut error);
    failed(status, INVALID_ARGUMENT, &error, "no output 'none'");
    let time = edgegen_model_options { time_as: c"beta".as_ptr(), ..options() };
    let (status, _) = open_by("time_gammas.onnx", &time, &mut error);
    failed(status, INVALID_ARGUMENT, &error, "there is no 'beta'");

    let none = edgegen_model_options { time_input: c"none".as_ptr(), ..options() };
    let (status, mut model) = open_by("shape_none.onnx", &none, &mut error);
    assert_eq!(status, OK);
    // SAFETY: the model is ours.
    unsafe { edgegen_model_free(&mut model, null_mut()) };

    // a mask and what is known, of open height and width
    let (mask, known) = ([0.5f32; 9], [0.25f32; 18]);
    let (mask_shape, known_shape) = ([1usize, 3, 3], [2usize, 3, 3]);
    let joins = [
        edgegen_shape { name: c"mask".as_ptr(), shape: mask_shape.as_ptr(), rank: 3 },
        edgegen_shape { name: c"sample".as_ptr(), shape: null(), rank: 0 },
        edgegen_shape { name: c"known".as_ptr(), shape: known_shape.as_ptr(), rank: 3 },
    ];
    let joined = edgegen_model_options { joins: joins.as_ptr(), num_joins: joins.len(), ..options() };
    let (status, mut model) = open_by("join_open.onnx", &joined, &mut error);
    assert_eq!(status, OK);
    let conditions = [
        edgegen_condition { name: c"mask".as_ptr(), values: mask.as_ptr(), len: mask.len() },
        edgegen_condition { name: c"known".as_ptr(), values: known.as_ptr(), len: known.len() },
    ];
    // SAFETY: all zeros stand for sample 0 of seed 0; all pointers are to what they should be, and the handles are ours.
    unsafe {
        let request =
            edgegen_request { conditions: conditions.as_ptr(), num_conditions: 2, ..zeroed::<edgegen_request>() };
        let mut generator = prepare(model, 2);
        let mut sample = [f32::NAN; 18];
        let status = edgegen_generate(generator, &request, sample.as_mut_ptr(), sample.len(), null_mut(), &mut error);
        assert_eq!(status, OK);
        assert!(sample.iter().all(|v| v.is_finite()));
        decoded(model, &sample);
        edgegen_generator_free(&mut generator, null_mut());
        edgegen_model_free(&mut model, null_mut());
    }
}

/// Makes a picture of a sample, and mistakes with the decoder.
fn decoded(model: *const edgegen_model, sample: &[f32]) {
    use edgegen_status::{INVALID_ARGUMENT, NULL_POINTER, OK, WRONG_SIZE};
    let (mut decoder, mut error, mut info) = (null_mut(), error(), MaybeUninit::uninit());
    let path = network("vae_decoder");
    // SAFETY: all pointers are to what they should be, or are null; the decoder is ours.
    unsafe {
        let shifted = edgegen_decoder_options { shift: 1.0, ..zeroed::<edgegen_decoder_options>() };
        let status = edgegen_decoder_open(path.as_ptr(), model, &shifted, &mut decoder, &mut error);
        failed(status, INVALID_ARGUMENT, &error, "needs a scale");
        assert_eq!(edgegen_decoder_open(path.as_ptr(), model, null(), &mut decoder, &mut error), OK);
        assert_eq!(edgegen_decoder_describe(decoder, info.as_mut_ptr(), &mut error), OK);
        let info: edgegen_decoder_info = info.assume_init();
        assert_eq!((&info.picture_shape[..info.picture_rank], info.picture_len), (&[3, 6, 6][..], 108));
        let mut picture = [f32::NAN; 108];
        let out = picture.as_mut_ptr();
        let status = edgegen_decode(decoder, sample.as_ptr(), sample.len(), out, 107, &mut error);
        failed(status, WRONG_SIZE, &error, "108 floats, but there is room for 107");
        let status = edgegen_decode(decoder, sample.as_ptr(), 17, out, 108, &mut error);
        failed(status, WRONG_SIZE, &error, "17");
        let status = edgegen_decode(decoder, sample.as_ptr(), sample.len(), null_mut(), 108, &mut error);
        failed(status, NULL_POINTER, &error, "picture");
        assert_eq!(edgegen_decode(decoder, sample.as_ptr(), sample.len(), out, 108, &mut error), OK);
        assert!(picture.iter().all(|v| v.abs() <= 1.0));
        edgegen_decoder_free(&mut decoder, null_mut());
        assert!(decoder.is_null());
    }
}
