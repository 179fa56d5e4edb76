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
//! use edgegen::Condition;
//! use edgegen::Model;
//! use edgegen::output::{Format, Picture, encode_picture};
//! use edgegen::sampler::Control;
//! use edgegen::{Generator, Settings};
//!
//! let model = Model::embedded()?;
//! let settings = Settings { steps: 5, ..Settings::of(&model)? };
//! let mut generator = Generator::new(&model, &settings)?;
//! let bag = Condition::class(model.class("Bag")?);
//! let (sample, _) = generator.generate(1, 0, &bag, &mut Control::default())?;
//!
//! let picture = Picture::new(model.sample_shape(), (-1.0, 1.0))?.grid(&[sample], 1);
//! let png = encode_picture(&picture, Format::Png)?;
//! assert_eq!(&png[1..4], b"PNG");
//! # }
//! # Ok::<(), edgegen::Error>(())
//! ```
//!
//! Without the `onnx` feature the library is the schedules and samplers alone, for networks that the
//! caller evaluates: implement [`network::Network`] and run a [`sampler::Sampler`].
#![warn(missing_docs)]

mod adaptive;
#[cfg(feature = "capi")]
#[allow(missing_docs)]
pub mod capi;
mod condition;
pub mod config;
pub mod constraint;
mod error;
mod file;
#[cfg(feature = "onnx")]
mod generator;
#[cfg(feature = "onnx")]
mod guard;
mod integrate;
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
pub mod restore;
pub mod sampler;
pub mod schedule;
pub mod scheduler;
pub mod solver;

pub use condition::Condition;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "onnx")]
pub use generator::{Encoder, Generator, Settings};
#[cfg(feature = "onnx")]
pub use model::{Model, ModelOptions};
pub use network::Network;
