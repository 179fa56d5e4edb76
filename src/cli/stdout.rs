//! What the program says, and whether there is a standard output to say it on.
//!
//! A program that is started without one (`>&-`) would write into nothing and say that all is well: before `main`, Rust's
//! runtime opens /dev/null in its place, so that no file that is opened later takes its number.

use anyhow::{Result, ensure};
use std::path::Path;

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

/// Writes to the standard output, which may be closed: an error then, where `println!` would panic.
pub fn print(text: &str) -> Result<()> {
    check()?;
    Ok(edgegen::output::write_file(Path::new("-"), text.as_bytes())?)
}

/// Says something on a line of its own.
pub fn warn(text: String) {
    eprintln!("edgegen: {}", one_line(text));
}

/// Names from files and arguments may hold anything, and be as long as they like: the error of the library is one line.
fn one_line(text: String) -> String {
    edgegen::Error::new(edgegen::ErrorKind::InvalidArgument, text).to_string()
}
