//! One error type for the library: a kind that a program can act on, and one line for a person.

use std::fmt;

/// What went wrong, for a program to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of its range or does not fit the model.
    InvalidArgument,
    /// The model file cannot be read as an ONNX network that maps a sample and a time to a sample.
    Model,
    /// A file could not be read or written.
    Io,
    /// A number was not finite where only finite numbers make sense.
    NotFinite,
    /// The network failed while it ran.
    Network,
}

/// An error of this library: its [`kind`](Error::kind), and one line that says what was wrong and what would be right.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// `std::result::Result` with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a one-line `message`. Names out of files may hold anything: line ends and other control
    /// characters become spaces, and what is very long is cut.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        const LONGEST: usize = 1000;
        let message: String = message.into();
        if !message.contains(char::is_control) && message.len() <= LONGEST {
            return Error { kind, message };
        }
        let mut plain: String = message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if message.len() > plain.len() {
            plain.push('…');
        }
        Error { kind, message: plain }
    }

    /// What went wrong, for a program to act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// The same error with `what: ` before its message.
    #[cfg(feature = "onnx")]
    pub(crate) fn context(self, what: impl fmt::Display) -> Self {
        Error::new(self.kind, format!("{what}: {}", self.message))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
