//! The C API: what `include/edgegen.h` declares. The header's own comments are these, for C programmers.
//!
//! ```text
//! model (immutable, shared) ──edgegen_prepare──→ generator (one thread at a time) ──edgegen_generate──→ caller's buffer
//!                           ──edgegen_policy_prepare──→ policy (one thread at a time) ──edgegen_policy_act──→ an action
//! ```
//! Three rules make it safe to call from C: every function runs inside `status::guarded`, which turns errors and panics
//! into a status; handles are checked before they are used (`handle`); and there is no global state.
//!
//! # What C promises
//! For as long as a call runs, every pointer that it is given, and every one in a struct that it is given, is null, or points
//! to what its type and its documentation say: an array is as long as is said beside it, a string ends in a zero, a handle
//! is one that was made here and that nobody frees meanwhile. What is read stays as it is, and nothing else uses what is
//! written. A pointer becomes a reference once, in a function of `pointer` or of `handle`, which first checks all that can be
//! checked; "C's promise" is said where nothing else is needed.
//!
//! `tools/capi/build.sh` builds and installs the library; `tools/capi/header.sh` writes the header.
// The names are C's. What C must promise is the same for all functions: pointers are null, or point to what they say.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod decoder;
mod generator;
mod handle;
mod model;
mod pointer;
mod policy;
mod policy_options;
mod status;

pub use decoder::*;
pub use generator::*;
pub use model::*;
pub use policy::*;
pub use policy_options::*;
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
