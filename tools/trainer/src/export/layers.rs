//! Layers that both networks' graphs are made of.

use super::graph::{Attribute::*, GraphBuilder};
use crate::network::Tensors;
use anyhow::{Context, Result};
use candle_core::Device;

/// Writes a network of the configuration `C` with these parameters.
pub struct Writer<'a, C> {
    pub graph: GraphBuilder,
    pub config: &'a C,
    pub parameters: &'a Tensors,
}

impl<C> Writer<'_, C> {
    /// A parameter's shape and values.
    pub fn parameter(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = self.parameters.get(name).with_context(|| format!("the checkpoint has no parameter {name}"))?;
        Ok((tensor.dims().to_vec(), tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?))
    }

    /// Stores a parameter, in `shape` if one is given.
    pub fn store(&mut self, name: &str, shape: Option<&[usize]>) -> Result<String> {
        let (own, values) = self.parameter(name)?;
        Ok(self.graph.f32(name, shape.unwrap_or(&own), &values))
    }

    pub fn silu(&mut self, name: &str, x: &str) -> String {
        let sigmoid = self.graph.add("Sigmoid", &[x], &format!("{name}/sigmoid"), &[]);
        self.graph.add("Mul", &[x, &sigmoid], &format!("{name}/silu"), &[])
    }

    pub fn linear(&mut self, name: &str, x: &str) -> Result<String> {
        let (w, b) = (self.store(&format!("{name}.w"), None)?, self.store(&format!("{name}.b"), None)?);
        Ok(self.graph.add("Gemm", &[x, &w, &b], name, &[("transB", Int(1))]))
    }

    /// The embedding `[N, E]` of the times `[N, 1]` of this name: sines and cosines of them at these frequencies, and two linear
    /// layers.
    pub fn time(&mut self, t: &str, frequencies: &[f32]) -> Result<String> {
        let frequencies = self.graph.f32("time/frequencies", &[1, frequencies.len()], frequencies);
        let angle = self.graph.add("Mul", &[t, &frequencies], "time/angle", &[]);
        let sin = self.graph.add("Sin", &[&angle], "time/sin", &[]);
        let cos = self.graph.add("Cos", &[&angle], "time/cos", &[]);
        let waves = self.graph.add("Concat", &[&sin, &cos], "time/waves", &[("axis", Int(1))]);
        let hidden = self.linear("t1", &waves)?;
        let hidden = self.silu("t1", &hidden);
        self.linear("t2", &hidden)
    }

    /// A network's one time for each sample, as `[N, 1]`.
    pub fn time_column(&mut self) -> String {
        let axes = self.graph.i64(&[1]);
        self.graph.add("Unsqueeze", &["timestep", &axes], "time/column", &[])
    }

    /// Group norm of x `[N, C, …side]`.
    pub fn group_norm(
        &mut self,
        name: &str,
        x: &str,
        groups: usize,
        channels: usize,
        side: &[usize],
    ) -> Result<String> {
        let ones = self.graph_once("norm/one", groups, 1.0);
        let zeros = self.graph_once("norm/zero", groups, 0.0);
        let grouped = self.graph.i64(&[0, groups as i64, -1]);
        let flat = self.graph.add("Reshape", &[x, &grouped], &format!("{name}/groups"), &[]);
        let attributes = [("epsilon", Float(1e-5))];
        let unit =
            self.graph.add("InstanceNormalization", &[&flat, &ones, &zeros], &format!("{name}/unit"), &attributes);
        let shape: Vec<i64> = [0, channels].iter().chain(side).map(|d| *d as i64).collect();
        let shape = self.graph.i64(&shape);
        let unit = self.graph.add("Reshape", &[&unit, &shape], &format!("{name}/picture"), &[]);
        let a_channel: Vec<usize> = [channels].into_iter().chain(side.iter().map(|_| 1)).collect();
        let scale = self.store(&format!("{name}.w"), Some(&a_channel))?;
        let shift = self.store(&format!("{name}.b"), Some(&a_channel))?;
        let scaled = self.graph.add("Mul", &[&unit, &scale], &format!("{name}/scaled"), &[]);
        Ok(self.graph.add("Add", &[&scaled, &shift], name, &[]))
    }

    /// Stores a vector of one value, the first time it is asked for.
    fn graph_once(&mut self, name: &str, len: usize, value: f32) -> String {
        if !self.graph.has(name) {
            self.graph.f32(name, &[len], &vec![value; len]);
        }
        name.into()
    }
}
