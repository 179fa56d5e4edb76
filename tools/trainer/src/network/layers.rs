//! What networks are made of: named parameters, how they start, and the layers over them.

use crate::ops::{conv2d, group_norm};
use candle_core::{DType, Result, Tensor};
use std::collections::BTreeMap;

/// Named tensors, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    Zero,
    One,
    /// Uniform within ±1/√n.
    FanIn(usize),
    Normal(f32),
}

/// A parameter's name, shape and start.
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub init: Init,
}

/// The parameters of a network, being listed.
#[derive(Default)]
pub struct Parameters(pub Vec<Parameter>);

impl Parameters {
    pub fn add(&mut self, name: &str, shape: &[usize], init: Init) {
        self.0.push(Parameter { name: name.into(), shape: shape.into(), init });
    }

    pub fn linear(&mut self, name: &str, from: usize, to: usize) {
        self.add(&format!("{name}.w"), &[to, from], Init::FanIn(from));
        self.add(&format!("{name}.b"), &[to], Init::FanIn(from));
    }

    pub fn conv(&mut self, name: &str, from: usize, to: usize, kernel: [usize; 2], zero: bool) {
        let init = if zero { Init::Zero } else { Init::FanIn(from * kernel[0] * kernel[1]) };
        self.add(&format!("{name}.w"), &[to, from, kernel[0], kernel[1]], init);
        self.add(&format!("{name}.b"), &[to], Init::Zero);
    }

    pub fn norm(&mut self, name: &str, channels: usize, scale: Init) {
        self.add(&format!("{name}.w"), &[channels], scale);
        self.add(&format!("{name}.b"), &[channels], Init::Zero);
    }
}

/// The frequencies of a sinusoidal time embedding of `width` numbers.
pub fn frequencies(width: usize) -> Vec<f32> {
    let half = width / 2;
    (0..half).map(|i| (-(10_000f64.ln()) * i as f64 / (half.max(2) - 1) as f64).exp() as f32).collect()
}

/// Layers over a set of parameters.
pub struct Layers<'a> {
    pub parameters: &'a Tensors,
    /// Groups of the group norms.
    pub groups: usize,
}

impl Layers<'_> {
    pub fn get(&self, name: &str) -> &Tensor {
        &self.parameters[name]
    }

    pub fn has(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    pub fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.get(&format!("{name}.w")).t()?)?.broadcast_add(self.get(&format!("{name}.b")))
    }

    /// A convolution padded so that a stride of 1 keeps the size.
    pub fn conv(&self, name: &str, x: &Tensor, stride: usize, input_gradient: bool) -> Result<Tensor> {
        let w = self.get(&format!("{name}.w"));
        let padding = [w.dim(2)? / 2, w.dim(3)? / 2];
        conv2d(x, w, self.get(&format!("{name}.b")), stride, padding, input_gradient)
    }

    pub fn norm(&self, name: &str, x: &Tensor, silu: bool) -> Result<Tensor> {
        let (scale, shift) = (self.get(&format!("{name}.w")), self.get(&format!("{name}.b")));
        group_norm(x, scale, shift, self.groups, silu)
    }

    /// The embedding of the times t `[B]`: sines and cosines, then two linear layers `t1` and `t2`.
    pub fn time(&self, t: &Tensor, width: usize) -> Result<Tensor> {
        let frequencies = frequencies(width);
        let frequencies = Tensor::from_vec(frequencies.clone(), (1, frequencies.len()), t.device())?;
        let angle = t.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?;
        let waves = Tensor::cat(&[angle.sin()?, angle.cos()?], 1)?;
        self.linear("t2", &self.linear("t1", &waves)?.silu()?)
    }
}
