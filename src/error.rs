//! One error type for the library: a kind that a program can act on, and one line for a person.

use std::fmt;

/// What went wrong, for a program to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of its range or does not fit the model.
    InvalidArgument,
    /// An array has another number of elements than it must.
    WrongSize,
    /// The model file cannot be read as an ONNX network that maps a sample and a time to a sample.
    Model,
    /// A file could not be read or written.
    Io,
    /// A number was not finite where only finite numbers make sense.
    NotFinite,
    /// The network failed while it ran.
    Network,
    /// A policy has no action for a control step.
    NoAction,
}

/// What a caller can give to put an error right. [`Error`]'s own words name it as the library does; a program that has
/// options of its own for these says what they are called there (see [`Error::message`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// One sample's shape: `ModelOptions::sample_shape`.
    SampleShape,
    /// A noise schedule: `ModelOptions::scheduler_config`, or `ModelOptions::sigmas` for a network that takes σ.
    Schedule,
    /// More memory for the model: `ModelOptions::max_memory`.
    MaxMemory,
    /// The name of the input of this role: `ModelOptions::input`.
    Input(&'static str),
    /// What the network is told of the noise: `ModelOptions::time_as`.
    TimeAs,
    /// A class: `Request::class`.
    Class,
    /// The condition of this name: `Request::condition`.
    Condition(String),
    /// The shape of the condition of this name: `ModelOptions::condition_shape`.
    ConditionShape(String),
    /// What the network takes in one with its sample: `ModelOptions::join`.
    Join,
    /// What latents are scaled by: `Scaling::factor` of a decoder.
    LatentScale,
    /// The name of the output that is the prediction: `ModelOptions::output`.
    Output,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::SampleShape => f.write_str("give the sample's shape by ModelOptions::sample_shape"),
            Hint::Schedule => f.write_str(
                "put its scheduler_config.json beside it, or give one by ModelOptions::scheduler_config; or, for a network that takes sigma, its range by ModelOptions::sigmas",
            ),
            Hint::MaxMemory => f.write_str("allow more by ModelOptions::max_memory"),
            Hint::Input(role) => write!(f, "name it by ModelOptions::input (role {role})"),
            Hint::TimeAs => f.write_str("say which by ModelOptions::time_as"),
            Hint::Class => f.write_str("give one by Request::class"),
            Hint::ConditionShape(name) => write!(f, "give its shape by ModelOptions::condition_shape(\"{name}\", ...)"),
            Hint::Join => f.write_str("say what it is by ModelOptions::join"),
            Hint::LatentScale => f.write_str("give it by Scaling::factor"),
            Hint::Output => f.write_str("name it by ModelOptions::output"),
            Hint::Condition(name) => write!(f, "give it by Request::condition(\"{name}\", ...)"),
        }
    }
}

/// An error of this library: its [`kind`](Error::kind), and one line that says what was wrong and what would be right.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<Hint>,
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
            return Error { kind, message, hint: None };
        }
        let mut plain: String = message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if message.len() > plain.len() {
            plain.push('…');
        }
        Error { kind, message: plain, hint: None }
    }

    /// What went wrong, for a program to act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was wrong, without what would put it right.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the caller can give to put it right, where that is one thing.
    pub fn hint(&self) -> Option<&Hint> {
        self.hint.as_ref()
    }

    #[cfg(feature = "onnx")]
    pub(crate) fn with_hint(self, hint: Hint) -> Self {
        Error { hint: Some(hint), ..self }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// The same error with `what: ` before its message.
    pub(crate) fn context(self, what: impl fmt::Display) -> Self {
        Error { hint: self.hint, ..Error::new(self.kind, format!("{what}: {}", self.message)) }
    }
}

/// A file is not a network that can be run.
#[cfg(feature = "onnx")]
pub(crate) fn model_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Model, message)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
