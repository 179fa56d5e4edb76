//! Handles: what C holds instead of a reference, checked before each use.

use super::status::{Failure, edgegen_status};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// What C may hold a handle of. Any thread may use it, and any may free it.
pub trait Handled: Send + Sync {
    /// What marks the memory of such a handle that is in use. It is taken away when the handle is freed, so that a freed
    /// handle is recognised for as long as the memory is not used for something else.
    const MARK: u64;
    /// What it is called.
    const NAME: &str;
}

/// A value that C holds by its address.
#[repr(C)]
pub struct Handle<T> {
    /// First, so that any eight bytes can be asked whether they are one.
    mark: AtomicU64,
    value: T,
}

impl<T: Handled> Handle<T> {
    pub fn new(value: T) -> *mut Self {
        Box::into_raw(Box::new(Handle { mark: T::MARK.into(), value }))
    }

    /// The value of a handle, once it is found to be one.
    ///
    /// # Safety
    /// `handle` is null or points to eight bytes that may be read; if these are the mark of a handle, it is one that
    /// [`new`](Self::new) made, which is not freed during `'a`.
    pub unsafe fn get<'a>(handle: *const Self) -> Result<&'a T, Failure> {
        if handle.is_null() {
            return Err(Failure::null(T::NAME));
        }
        // SAFETY: it is not null, and aligned or else not looked at; by the caller's promise there are eight bytes.
        let is_marked = || unsafe { &*handle.cast::<AtomicU64>() }.load(Ordering::Acquire) == T::MARK;
        if !handle.is_aligned() || !is_marked() {
            let message = format!("{} is not one, or was freed", T::NAME);
            return Err(Failure::new(edgegen_status::BAD_HANDLE, message));
        }
        // SAFETY: it bears the mark, so by the caller's promise it is a handle that lives.
        Ok(&unsafe { &*handle }.value)
    }

    /// Frees a handle, once it is found to be one.
    ///
    /// # Safety
    /// As [`get`](Self::get), and nothing else uses the handle, now or later.
    pub unsafe fn free(handle: *mut Self) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { Self::get(handle)? };
        // SAFETY: it is a handle, so `new` made it from a box; nothing else uses it, by the caller's promise.
        let freed = unsafe { Box::from_raw(handle) };
        freed.mark.store(0, Ordering::Release);
        Ok(())
    }
}

/// What one thread may use at a time; another that tries is told so.
pub struct Exclusive<T>(Mutex<T>);

impl<T> Exclusive<T> {
    pub fn new(value: T) -> Self {
        Exclusive(Mutex::new(value))
    }

    /// The use of it, until what is returned is dropped. A call that panicked has given it back.
    pub fn acquire(&self) -> Result<MutexGuard<'_, T>, Failure>
    where
        Self: Handled,
    {
        match self.0.try_lock() {
            Ok(value) => Ok(value),
            Err(TryLockError::Poisoned(panicked)) => Ok(panicked.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                edgegen_status::BUSY,
                format!("{} is in use by another call: give each thread its own", Self::NAME),
            )),
        }
    }

    /// Acquires it for good: others are told that it is in use.
    pub fn retire(&self) -> Result<(), Failure>
    where
        Self: Handled,
    {
        self.acquire().map(std::mem::forget)
    }
}
