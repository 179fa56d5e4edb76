//! Handles: what C holds instead of a reference, checked before each use.

use super::{Failure, edgegen_status};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What marks the memory of a handle that is in use. It is taken away when the handle is freed, so that a freed handle
/// is recognised for as long as the memory is not used for something else.
const MODEL: u64 = 0x6564_6765_6765_6e6d;
const GENERATOR: u64 = 0x6564_6765_6765_6e67;

/// The start of every handle.
#[repr(C)]
struct Mark(AtomicU64);

/// A handle that many threads may use at once.
#[repr(C)]
pub struct Shared<T> {
    mark: Mark,
    value: T,
}

/// A handle that one thread may use at a time; another that tries is told so.
#[repr(C)]
pub struct Exclusive<T> {
    mark: Mark,
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

/// The use of an exclusive handle, until it is dropped.
pub struct Use<'a, T>(&'a Exclusive<T>);

/// Checks that `handle` is null, or lies where a handle may, and bears `mark`.
///
/// # Safety
/// `handle` is null or points to eight bytes that may be read.
unsafe fn check<T>(handle: *const T, mark: u64, what: &str) -> Result<(), Failure> {
    if handle.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: not null, aligned, and the caller's promise.
    if handle.is_aligned() && unsafe { (*handle.cast::<Mark>()).0.load(Ordering::Acquire) } == mark {
        return Ok(());
    }
    Err(Failure::new(edgegen_status::BAD_HANDLE, format!("{what} is not one, or was freed")))
}

impl<T> Shared<T> {
    pub fn new(value: T) -> *mut Self {
        Box::into_raw(Box::new(Shared { mark: Mark(AtomicU64::new(MODEL)), value }))
    }

    /// # Safety
    /// `handle` is null or points to memory that may be read, and is not freed during `'a`.
    pub unsafe fn get<'a>(handle: *const Self, what: &str) -> Result<&'a T, Failure> {
        // SAFETY: the caller's promise.
        unsafe { check(handle, MODEL, what)? };
        // SAFETY: it bears our mark.
        Ok(unsafe { &(*handle).value })
    }

    /// # Safety
    /// As [`get`](Self::get), and no other thread uses it.
    pub unsafe fn free(handle: *mut Self, what: &str) -> Result<(), Failure> {
        // SAFETY: the caller's promise, and that it bears our mark.
        unsafe {
            check(handle, MODEL, what)?;
            (*handle).mark.0.store(0, Ordering::Release);
            drop(Box::from_raw(handle));
        }
        Ok(())
    }
}

impl<T> Exclusive<T> {
    pub fn new(value: T) -> *mut Self {
        let mark = Mark(AtomicU64::new(GENERATOR));
        Box::into_raw(Box::new(Exclusive { mark, busy: AtomicBool::new(false), value: UnsafeCell::new(value) }))
    }

    /// # Safety
    /// `handle` is null or points to memory that may be read, and is not freed during `'a`.
    pub unsafe fn acquire<'a>(handle: *const Self, what: &str) -> Result<Use<'a, T>, Failure> {
        // SAFETY: the caller's promise.
        unsafe { check(handle, GENERATOR, what)? };
        // SAFETY: it bears our mark.
        let handle = unsafe { &*handle };
        match handle.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Use(handle)),
            Err(_) => Err(Failure::new(
                edgegen_status::BUSY,
                format!("{what} is in use by another call: give each thread its own"),
            )),
        }
    }

    /// # Safety
    /// As [`acquire`](Self::acquire), and no other thread is about to use it.
    pub unsafe fn free(handle: *mut Self, what: &str) -> Result<(), Failure> {
        // SAFETY: the caller's promise. Who has acquired it is the only one to use it, so that it may go.
        unsafe {
            std::mem::forget(Self::acquire(handle, what)?);
            (*handle).mark.0.store(0, Ordering::Release);
            drop(Box::from_raw(handle));
        }
        Ok(())
    }
}

impl<T> Use<'_, T> {
    pub fn get(&mut self) -> &mut T {
        // SAFETY: there is one `Use` of a handle at a time.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Use<'_, T> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
