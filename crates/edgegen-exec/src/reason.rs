//! Why a graph has no plan.

use std::fmt;

/// Why a graph has no plan, and with that what may still be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no kernel for something in the graph. Another engine may run it.
    Unsupported(String),
    /// A value or the work space would take more memory than a model may. No engine is to try.
    TooLarge(String),
    /// The graph contradicts itself or ONNX's specification. No engine is to try.
    Malformed(String),
}

impl Reason {
    /// The same reason with `what: ` before it.
    pub fn context(self, what: impl fmt::Display) -> Self {
        match self {
            Reason::Unsupported(e) => Reason::Unsupported(format!("{what}: {e}")),
            Reason::TooLarge(e) => Reason::TooLarge(format!("{what}: {e}")),
            Reason::Malformed(e) => Reason::Malformed(format!("{what}: {e}")),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Reason::Unsupported(e) | Reason::TooLarge(e) | Reason::Malformed(e)) = self;
        f.write_str(e)
    }
}

impl From<String> for Reason {
    fn from(what: String) -> Self {
        Reason::Unsupported(what)
    }
}

impl From<&str> for Reason {
    fn from(what: &str) -> Self {
        Reason::Unsupported(what.into())
    }
}
