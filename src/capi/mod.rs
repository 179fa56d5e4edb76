//! The C API: what `include/edgegen.h` declares. The header's own comments are these, for C programmers.
//!
//! ```text
//! model (immutable, shared) ──edgegen_prepare──→ generator (one thread at a time) ──edgegen_generate──→ caller's buffer
//! ```
//! Three rules make it safe to call from C: every function runs inside `status::guarded`, which turns errors and panics
//! into a status; handles are checked before they are used (`handle`); and there is no global state.
//!
//! `tools/capi/build.sh` builds and installs the library; `tools/capi/header.sh` writes the header.
// The names are C's. What C must promise is the same for all functions: pointers are null, or point to what they say.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod generator;
mod handle;
mod model;
mod status;

pub use generator::*;
pub use model::*;
pub use status::*;

use std::ffi::{CStr, c_char};

#[cfg(panic = "abort")]
compile_error!("the C API must catch panics: build it with a profile that unwinds, such as `--profile dist`");

/// The version of this interface. It changes when a program compiled against an older header would no longer work.
pub const EDGEGEN_ABI_VERSION: u32 = 2;

/// The interface that the library was built with: compare it with EDGEGEN_ABI_VERSION, once, if the library is shared.
#[unsafe(no_mangle)]
pub extern "C" fn edgegen_abi_version() -> u32 {
    EDGEGEN_ABI_VERSION
}

/// The library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn edgegen_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => unreachable!(),
    };
    VERSION.as_ptr()
}

/// What C sees of a handle: nothing.
struct Opaque;

/// A string of the caller's; `None` for null.
///
/// # Safety
/// `text` is null or points to a string that ends in a zero and stays as it is for `'a`.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::new(edgegen_status::INVALID_ARGUMENT, format!("{what} is not UTF-8")))
}

/// Numbers of the caller's.
///
/// # Safety
/// `values` is null or points to `len` numbers that stay as they are for `'a`.
unsafe fn numbers<'a>(values: *const f32, len: usize, what: &str) -> Result<&'a [f32], Failure> {
    if values.is_null() {
        return Err(Failure::null(what));
    }
    if !values.is_aligned() || len > isize::MAX as usize / size_of::<f32>() {
        return Err(Failure::new(edgegen_status::WRONG_SIZE, format!("{what} is not an array of {len} floats")));
    }
    // SAFETY: not null, aligned, of a possible size, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(values, len) })
}

/// A place of the caller's to write a result to.
///
/// # Safety
/// `place` is null or points to memory for a `T` that nothing else uses for `'a`.
unsafe fn place<'a, T>(place: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    if place.is_null() {
        return Err(Failure::null(what));
    }
    if !place.is_aligned() {
        return Err(Failure::new(edgegen_status::INVALID_ARGUMENT, format!("{what} is not aligned")));
    }
    // SAFETY: not null, aligned, and the caller's promise. The types that C hands over are valid for every bit pattern.
    Ok(unsafe { &mut *place })
}
