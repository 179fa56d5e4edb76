//! Pointers of the caller's, which become references here: all that can be checked is, and the rest is what C promises (see the
//! [module above](super)).

use super::handle::{Handle, Handled};
use super::status::{Failure, edgegen_error, edgegen_status};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;

/// A string of the caller's; `None` for null.
///
/// # Safety
/// `text` is null or points to a string that ends in a zero and stays as it is for `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
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
pub(super) unsafe fn array<'a, T>(first: *const T, len: usize, what: &str) -> Result<&'a [T], Failure> {
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
pub(super) unsafe fn given<'a, T>(given: *const T, what: &str) -> Result<Option<&'a T>, Failure> {
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
pub(super) unsafe fn place<'a, T>(place: *mut T, what: &str) -> Result<&'a mut MaybeUninit<T>, Failure> {
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
pub(super) unsafe fn free<T: Handled, C>(
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

/// Where a call's error goes: nowhere if that is null, or no place for one.
///
/// # Safety
/// As [`place`].
pub(super) unsafe fn told<'a>(error: *mut edgegen_error) -> Option<&'a mut MaybeUninit<edgegen_error>> {
    // SAFETY: the caller's promise.
    unsafe { place(error, "error") }.ok()
}
