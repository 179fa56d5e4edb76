//! Running code that may panic, quietly: tract checks the models that it is given, but not to the last byte.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside of [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `f` gives, or none if it panics. The caller answers for what `f` leaves half done.
///
/// A panic prints its message before it can be caught. That is what the process's panic hook does, and the process is the
/// host's. So the hook is wrapped once: on a thread that is inside of this function it is silent, and in every other case
/// it does what it did. A host that sets a hook of its own later has the last word.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    static WRAPPED: Once = Once::new();
    // the hook cannot be taken by a thread that panics already
    if !std::thread::panicking() {
        WRAPPED.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !GUARDED.get() {
                    hook(info);
                }
            }));
        });
    }
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(outer);
    result.ok()
}
