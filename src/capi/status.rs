//! What a call came to, and the border that no panic crosses.

use crate::{Error, ErrorKind, Hint};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call came to. A run that a deadline or the callback ended is OK: `edgegen_outcome` says so.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum edgegen_status {
    /// It worked.
    OK = 0,
    /// An argument is out of its range or does not fit the model.
    INVALID_ARGUMENT = 1,
    /// A pointer that must not be null is.
    NULL_POINTER = 2,
    /// A buffer is of the wrong length.
    WRONG_SIZE = 3,
    /// A handle is none, or was freed.
    BAD_HANDLE = 4,
    /// Another thread is in a call with this generator, or this call came from its own callback.
    BUSY = 5,
    /// The file or the bytes are not a network that samples can be made from.
    MODEL = 6,
    /// A file could not be read.
    IO = 7,
    /// A number was not finite where only finite numbers make sense.
    NOT_FINITE = 8,
    /// The network failed while it ran.
    NETWORK = 9,
    /// This build lacks what was asked for.
    UNSUPPORTED = 10,
    /// A mistake in the library: it was caught, and the handle may be freed.
    INTERNAL = 11,
    /// A policy has no action for a control step.
    NO_ACTION = 12,
}

/// The length of an error's message, with the zero at its end.
pub const EDGEGEN_MESSAGE_SIZE: usize = 256;

/// What went wrong, written into memory of the caller's: threads that each have their own cannot disturb each other.
/// Every function takes one last, and null if the status is enough.
#[repr(C)]
pub struct edgegen_error {
    /// What the call returned.
    pub status: edgegen_status,
    /// One line for a person, which says what would be right; empty if all went well.
    pub message: [c_char; EDGEGEN_MESSAGE_SIZE],
}

/// The status' name, such as "WRONG_SIZE", for a log.
#[unsafe(no_mangle)]
pub extern "C" fn edgegen_status_name(status: i32) -> *const c_char {
    const NAMES: [&CStr; 13] = [
        c"OK",
        c"INVALID_ARGUMENT",
        c"NULL_POINTER",
        c"WRONG_SIZE",
        c"BAD_HANDLE",
        c"BUSY",
        c"MODEL",
        c"IO",
        c"NOT_FINITE",
        c"NETWORK",
        c"UNSUPPORTED",
        c"INTERNAL",
        c"NO_ACTION",
    ];
    usize::try_from(status).ok().and_then(|s| NAMES.get(s)).copied().unwrap_or(c"unknown").as_ptr()
}

/// Why a call failed.
pub struct Failure {
    status: edgegen_status,
    message: String,
}

impl Failure {
    pub(super) fn new(status: edgegen_status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }

    pub(super) fn null(what: &str) -> Self {
        Failure::new(edgegen_status::NULL_POINTER, format!("{what} must not be null"))
    }

    pub(super) fn unaligned(what: &str) -> Self {
        Failure::new(edgegen_status::INVALID_ARGUMENT, format!("{what} is not aligned"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument => edgegen_status::INVALID_ARGUMENT,
            ErrorKind::WrongSize => edgegen_status::WRONG_SIZE,
            ErrorKind::Model => edgegen_status::MODEL,
            ErrorKind::Io => edgegen_status::IO,
            ErrorKind::NotFinite => edgegen_status::NOT_FINITE,
            ErrorKind::Network => edgegen_status::NETWORK,
            ErrorKind::NoAction => edgegen_status::NO_ACTION,
        };
        Failure::new(status, in_fields(&error))
    }
}

/// An error of the library, whose hint is told by the fields of this interface.
fn in_fields(error: &Error) -> String {
    let message = error.message();
    match error.hint() {
        None => message.to_string(),
        Some(Hint::SampleShape) => format!("{message}: give the sample's shape in the options' sample_shape"),
        Some(Hint::Schedule) => {
            format!(
                "{message}: put its scheduler_config.json beside it, or give its text in the options' scheduler_config"
            )
        }
        Some(Hint::MaxMemory) => format!("{message}: allow more by the options' max_memory"),
        Some(Hint::Input(role)) => format!("{message}: name it in the options' {role}_input"),
        Some(Hint::TimeAs) => format!("{message}: say what it is told in the options' time_as"),
        Some(Hint::Class) => format!("{message}: give one in the request's class_index"),
        Some(Hint::ConditionShape(name)) => {
            format!("{message}: give the shape of {name} in the options' condition_shapes")
        }
        Some(Hint::Join) => format!("{message}: say what it is in the options' joins"),
        Some(Hint::LatentScale) => format!("{message}: give it as the decoder's scale"),
        Some(Hint::Output) => format!("{message}: name it in the options' output"),
        Some(Hint::Condition(name)) => format!("{message}: give {name} among the request's conditions"),
    }
}

/// Runs a call's `body`; its error or panic goes into `error` and the status.
pub(super) fn guarded(
    error: Option<&mut MaybeUninit<edgegen_error>>,
    body: impl FnOnce() -> Result<(), Failure>,
) -> edgegen_status {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let what = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        Err(Failure::new(edgegen_status::INTERNAL, format!("an internal check failed: {}", what.unwrap_or("?"))))
    });
    let (status, message) = match &result {
        Ok(()) => (edgegen_status::OK, ""),
        Err(failure) => (failure.status, failure.message.as_str()),
    };
    if let Some(error) = error {
        error.write(edgegen_error { status, message: c_message(message) });
    }
    status
}

/// As much of `message` as there is room for, whole words of it with dots where it is cut, and zeros.
fn c_message(message: &str) -> [c_char; EDGEGEN_MESSAGE_SIZE] {
    const DOTS: &str = " ...";
    let mut all = [0; EDGEGEN_MESSAGE_SIZE];
    let (shown, dots) = if message.len() < EDGEGEN_MESSAGE_SIZE {
        (message, "")
    } else {
        let end = message.floor_char_boundary(EDGEGEN_MESSAGE_SIZE - 1 - DOTS.len());
        // a word may be longer than all that there is room for
        let last = message[..end].rfind(' ').filter(|at| *at > end / 2 && !message[end..].starts_with(' '));
        (&message[..last.unwrap_or(end)], DOTS)
    };
    // a zero inside would end it for C, which is harmless
    all.iter_mut().zip(shown.bytes().chain(dots.bytes())).for_each(|(to, byte)| *to = byte as c_char);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: impl FnOnce() -> Result<(), Failure>) -> (edgegen_status, String) {
        let mut error = MaybeUninit::uninit();
        let status = guarded(Some(&mut error), body);
        // SAFETY: `guarded` wrote it.
        let edgegen_error { status: told, message } = unsafe { error.assume_init() };
        assert_eq!(told, status);
        let message: Vec<u8> = message.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        (status, String::from_utf8(message).unwrap())
    }

    #[test]
    fn a_panic_becomes_a_status() {
        let (status, message) = call(|| panic!("of {}", 3));
        assert_eq!((status, message.as_str()), (edgegen_status::INTERNAL, "an internal check failed: of 3"));
        assert_eq!(call(|| Ok(())), (edgegen_status::OK, String::new()));
    }

    #[test]
    fn a_long_message_is_cut_between_words() {
        let of = |message: String| call(|| Err(Failure::new(edgegen_status::IO, message.clone()))).1;
        assert_eq!(of("é".repeat(200)), "é".repeat(125) + " ...");
        for long in ["seven characters ".repeat(16), "a word ".repeat(80), "é è ".repeat(90), "x".repeat(256)] {
            let said = of(long.clone());
            let cut = said.strip_suffix(" ...").unwrap();
            assert!(said.len() < EDGEGEN_MESSAGE_SIZE && said.len() > 200, "{said}");
            assert!(long.strip_prefix(cut).is_some_and(|rest| rest.starts_with(' ') || !long.contains(' ')), "{said}");
        }
        assert_eq!(of("y".repeat(255)), "y".repeat(255));
    }
}
