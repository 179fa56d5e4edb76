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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_panic_is_silent_and_the_hosts_hook_stays_for_others() {
        const CHILD: &str = "EDGEGEN_TEST_OF_GUARDED";
        const NAME: &str = "a_guarded_panic_is_silent_and_the_hosts_hook_stays_for_others";
        if std::env::var_os(CHILD).is_none() {
            let program = std::env::current_exe().unwrap();
            let start = |args: [&str; 2]| std::process::Command::new(&program).args(args).env(CHILD, "1").output();
            // an emulated process cannot start itself
            if !start([NAME, "--list"]).is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(NAME)) {
                return eprintln!("SKIPPED: this process cannot start itself");
            }
            // in a process of its own: hooks are the process's
            let output = start([NAME, "--nocapture"]).unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words}");
            assert_eq!(words.trim(), "the host's hook: before\nthe host's hook: after\nthe host's hook: beside");
            return;
        }
        std::panic::set_hook(Box::new(|info| {
            eprintln!("the host's hook: {}", info.payload().downcast_ref::<&str>().unwrap_or(&"?"));
        }));
        assert!(catch_unwind(|| std::panic::panic_any("before")).is_err());
        assert_eq!(guarded(|| 7), Some(7));
        let inner = || guarded(|| std::panic::panic_any("inside of another")).is_none();
        assert_eq!(guarded(|| assert!(inner())), Some(()));
        assert_eq!(guarded(|| std::panic::panic_any("inside")), None::<()>);
        assert!(catch_unwind(|| std::panic::panic_any("after")).is_err());
        // another thread is not guarded while this one is
        let beside = || std::thread::spawn(|| std::panic::panic_any("beside")).join().is_err();
        assert_eq!(guarded(beside), Some(true));
    }
}
