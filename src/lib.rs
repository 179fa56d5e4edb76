//! Generate samples from a diffusion model on the device itself: ARM and x86-64 CPUs, no Python, no
//! GPU, no network.
//!
//! The way of a sample, and the module that has each part of it:
//!
//! ```text
//! seed ─→ noise ──x_T──→ sampler ──x_0──→ output ─→ out.png
//!                         ↑     ↕
//!  config ─→ schedule ─→ solver  network (ONNX, or your own)
//!            (levels)   (table)     ↑
//!                               condition (class, guidance)
//! ```
//!
//! [`Generator`] puts it together for ONNX models:
//!
//! ```
//! # #[cfg(all(feature = "embedded-model", feature = "output"))] {
//! use edgegen::output::{Format, Picture, encode_picture};
//! use edgegen::{Model, Request};
//!
//! let model = Model::embedded()?;
//! let mut generator = model.generator().steps(5).build()?;
//! let run = generator.run(&Request::new(1, 0).class(model.class("Bag")?))?;
//!
//! let picture = Picture::new(model.sample_shape(), (-1.0, 1.0))?.grid(&[run.sample], 1);
//! let png = encode_picture(&picture, Format::Png)?;
//! assert_eq!(&png[1..4], b"PNG");
//! # }
//! # Ok::<(), edgegen::Error>(())
//! ```
//!
//! Without the `onnx` feature the library is the schedules and samplers alone, for networks that the
//! caller evaluates: implement [`network::Network`] and run a [`sampler::Sampler`].
#![warn(missing_docs)]

#[cfg(feature = "capi")]
#[allow(missing_docs)]
pub mod capi;
mod condition;
pub mod config;
pub mod constraint;
mod diffusers;
mod error;
mod file;
#[cfg(feature = "onnx")]
mod generator;
#[cfg(feature = "onnx")]
mod guard;
#[cfg(feature = "output")]
mod image_file;
#[cfg(feature = "onnx")]
mod lerobot;
pub mod likelihood;
#[cfg(feature = "onnx")]
pub mod model;
pub mod network;
pub mod noise;
#[cfg(feature = "onnx")]
mod normalization;
#[cfg(feature = "output")]
mod npy;
#[cfg(feature = "output")]
pub mod output;
#[cfg(feature = "onnx")]
pub mod policy;
#[cfg(feature = "onnx")]
mod request;
#[cfg(feature = "onnx")]
pub mod restore;
pub mod sampler;
pub mod schedule;
pub mod solver;
#[doc(hidden)]
pub mod suggest;

pub use condition::Condition;
pub use error::{Error, ErrorKind, Hint, Result};
#[cfg(feature = "onnx")]
pub use generator::{Encoder, Generated, Generator, GeneratorBuilder, Settings};
#[cfg(feature = "onnx")]
pub use model::{Model, ModelOptions, Precision};
pub use network::Network;
#[cfg(feature = "onnx")]
pub use policy::{Policy, PolicyBuilder};
#[cfg(feature = "onnx")]
pub use request::Request;
pub use sampler::{Ending, Outcome, Progress};

/// What may go from thread to thread, and what may be shared by them: told by the compiler if it changes.
const _: () = {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    send::<Condition>();
    sync::<Condition>();
    send::<Error>();
    sync::<Error>();
    send::<sampler::Sampler>();
    sync::<sampler::Sampler>();
    send::<sampler::AdaptiveSampler>();
    sync::<sampler::AdaptiveSampler>();
    send::<schedule::Schedule>();
    sync::<schedule::Schedule>();
    #[cfg(feature = "onnx")]
    {
        send::<Model>();
        sync::<Model>();
        send::<ModelOptions>();
        sync::<ModelOptions>();
        send::<Settings>();
        sync::<Settings>();
        send::<GeneratorBuilder>();
        sync::<GeneratorBuilder>();
        // of one thread at a time
        send::<Generator>();
        send::<Encoder>();
        send::<model::ModelNetwork>();
        send::<restore::Restorer>();
        send::<Policy>();
    }
};
