//! The C API: what `include/edgegen.h` declares. The header's own comments are these, for C programmers.
//!
//! ```text
//! model (immutable, shared) ──edgegen_prepare──→ generator (one thread at a time) ──edgegen_generate──→ caller's buffer
//! ```
//! Three rules make it safe to call from C: every function runs inside `status::guarded`, which turns errors and panics
//! into a status; handles are checked before they are used (`handle`); and there is no global state.
//!
//! # What C promises
//! For as long as a call runs, every pointer that it is given, and every one in a struct that it is given, is null, or points
//! to what its type and its documentation say: an array is as long as is said beside it, a string ends in a zero, a handle
//! is one that was made here and that nobody frees meanwhile. What is read stays as it is, and nothing else uses what is
//! written. A pointer becomes a reference once, in a function of this file or of `handle`, which first checks all that can be
//! checked; "C's promise" is said where nothing else is needed.
//!
//! `tools/capi/build.sh` builds and installs the library; `tools/capi/header.sh` writes the header.
// The names are C's. What C must promise is the same for all functions: pointers are null, or point to what they say.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod decoder;
mod generator;
mod handle;
mod model;
mod status;

pub use decoder::*;
pub use generator::*;
pub use model::*;
pub use status::*;

use handle::{Handle, Handled};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;

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

/// An array of the caller's, of a type of which any bits are a value.
///
/// # Safety
/// `first` is null or points to the first of `len` values that stay as they are for `'a`.
unsafe fn array<'a, T>(first: *const T, len: usize, what: &str) -> Result<&'a [T], Failure> {
    if first.is_null() {
        return Err(Failure::null(what));
    }
    if !first.is_aligned() || len > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::new(edgegen_status::WRONG_SIZE, format!("{what} is not an array of {len}")));
    }
    // SAFETY: not null, aligned, of a possible size, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(first, len) })
}

/// A struct of the caller's, of a type of which any bits are a value; `None` for null.
///
/// # Safety
/// `given` is null or points to one that stays as it is for `'a`.
unsafe fn given<'a, T>(given: *const T, what: &str) -> Result<Option<&'a T>, Failure> {
    if !given.is_null() && !given.is_aligned() {
        return Err(Failure::unaligned(what));
    }
    // SAFETY: null or aligned, and the caller's promise.
    Ok(unsafe { given.as_ref() })
}

/// A place of the caller's to write a result to, which may hold anything yet.
///
/// # Safety
/// `place` is null or points to memory for a `T` that nothing else uses for `'a`.
unsafe fn place<'a, T>(place: *mut T, what: &str) -> Result<&'a mut MaybeUninit<T>, Failure> {
    if place.is_null() {
        return Err(Failure::null(what));
    }
    if !place.is_aligned() {
        return Err(Failure::unaligned(what));
    }
    // SAFETY: not null, aligned, and the caller's promise; memory that may hold anything is always valid.
    Ok(unsafe { &mut *place.cast::<MaybeUninit<T>>() })
}

/// Takes a handle from its owner: frees it, and sets the owner's pointer to null. Of none there is nothing to free.
///
/// # Safety
/// `owner` is null or points to a pointer that nothing else uses; for that, the promise of [`Handle::free`].
unsafe fn free<T: Handled, C>(
    owner: *mut *mut C,
    may_go: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { owner.as_mut() }) else { return Ok(()) };
    if !handle.is_null() {
        // SAFETY: the caller's promise.
        may_go(unsafe { Handle::get(handle.cast())? })?;
        // SAFETY: the caller's promise.
        unsafe { Handle::<T>::free(handle.cast())? };
        *handle = ptr::null_mut();
    }
    Ok(())
}
