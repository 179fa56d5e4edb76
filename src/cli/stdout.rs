//! Whether there is a standard output.
//!
//! A program that is started without one (`>&-`) would write into nothing and say that all is well: before `main`, Rust's
//! runtime opens /dev/null in its place, so that no file that is opened later takes its number.

use anyhow::{Result, ensure};

#[cfg(target_os = "linux")]
mod early {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether the program was started without a standard output.
    static CLOSED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" {
        safe fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    }

    const F_GETFD: c_int = 1;

    extern "C" fn look() {
        CLOSED.store(fcntl(1, F_GETFD) == -1, Ordering::Relaxed);
    }

    // SAFETY: the C runtime calls the functions of this section once each, before `main`; this one needs nothing that is
    // set up later.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    pub fn is_closed() -> bool {
        CLOSED.load(Ordering::Relaxed)
    }
}

/// # Errors
/// When the program was started without a standard output.
pub fn check() -> Result<()> {
    #[cfg(target_os = "linux")]
    ensure!(!early::is_closed(), "cannot write to the standard output: it is closed");
    #[cfg(not(target_os = "linux"))]
    ensure!(true);
    Ok(())
}
