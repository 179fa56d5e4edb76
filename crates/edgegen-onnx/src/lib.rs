//! ONNX files: their protobuf messages ([`pb`]), weights that lie in files of their own ([`external`]), and the passes that
//! put right what exporters write and engines do not take ([`mend`], [`qoperator`], [`fold`]). What a file may ask for is
//! bounded by a [`budget`].

pub mod budget;
pub mod expand;
pub mod external;
pub mod fold;
pub mod for_tract;
pub mod functions;
pub mod mend;
pub mod order;
pub mod pb;
pub mod qoperator;
pub mod signature;

/// `std::result::Result` with one line that says what in a file is wrong.
pub type Result<T, E = String> = std::result::Result<T, E>;
