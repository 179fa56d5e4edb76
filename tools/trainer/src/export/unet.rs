//! The U-Net as an ONNX graph.
//!
//! The forms are those that PyTorch's exporters make and runtimes know best: group norm is Reshape,
//! InstanceNormalization, Reshape, Mul, Add (the native operator costs tract twice the allocations);
//! SiLU is Sigmoid and Mul. Cutting the sample into patches is folded into the first convolution, which
//! becomes one of twice the size and stride; putting it together again is DepthToSpace.

use super::graph::Attribute::*;
use super::layers::Writer;
use crate::network::UnetConfig;
use anyhow::Result;

impl Writer<'_, UnetConfig> {
    /// Writes the network.
    pub fn unet(&mut self) -> Result<()> {
        let config = self.config;
        let embedding = self.embedding()?;
        let channels = config.channels();
        let levels = channels.len();
        let side = |level: usize| [1, 2].map(|axis: usize| (config.shape[axis] / config.patch) >> level);
        let mut h = self.first_convolution()?;
        let mut current = config.base;
        let mut skips = Vec::with_capacity(levels);
        for (level, &out) in channels.iter().enumerate() {
            for block in 0..config.blocks {
                h = self.block(&format!("d{level}.{block}"), &h, current, out, side(level), &embedding)?;
                current = out;
            }
            skips.push((h.clone(), current));
            if level + 1 < levels {
                h = self.conv(&format!("down{level}"), &h, 2)?;
            }
        }
        let last = side(levels - 1);
        h = self.block("m0", &h, current, current, last, &embedding)?;
        if config.attention {
            h = self.attention(&h, current, last)?;
        }
        if config.middle_blocks > 1 {
            h = self.block("m1", &h, current, current, last, &embedding)?;
        }
        for level in (0..levels).rev() {
            let (skip, skip_channels) = &skips[level];
            h = self.graph.add("Concat", &[&h, skip], &format!("u{level}/concat"), &[("axis", Int(1))]);
            current += skip_channels;
            for block in 0..config.blocks {
                h = self.block(&format!("u{level}.{block}"), &h, current, channels[level], side(level), &embedding)?;
                current = channels[level];
            }
            if level > 0 {
                h = self.upsample(level, &h);
                h = self.conv(&format!("up{level}"), &h, 1)?;
                current = channels[level - 1];
            }
        }
        let h = self.norm_silu("out.n", &h, current, side(0))?;
        let h = self.conv("out", &h, 1)?;
        if config.patch == 1 {
            self.graph.add("Identity", &[&h], "prediction", &[]);
        } else {
            let attributes = [("blocksize", Int(config.patch as i64)), ("mode", Text("CRD"))];
            self.graph.add("DepthToSpace", &[&h], "prediction", &attributes);
        }
        Ok(())
    }

    /// The embedding `[N, E]` of time and label, after its SiLU.
    fn embedding(&mut self) -> Result<String> {
        let column = self.time_column();
        let time = self.time(&column, &self.config.frequencies())?;
        let table = self.store("label.w", None)?;
        let label = self.graph.add("Gather", &[&table, "class_labels"], "label", &[("axis", Int(0))]);
        let sum = self.graph.add("Add", &[&time, &label], "embedding", &[]);
        Ok(self.silu("embedding", &sum))
    }

    /// The first convolution on the sample itself: over patches of p×p it is a k×k convolution, over
    /// pixels one of p·k×p·k with stride p.
    fn first_convolution(&mut self) -> Result<String> {
        let (shape, values) = self.parameter("in.w")?;
        let (p, c_in, k) = (self.config.patch, self.config.shape[0], shape[3]);
        let mut w = vec![0f32; values.len()];
        let side = p * k;
        for (i, v) in values.iter().enumerate() {
            let (o, channel, ky, kx) = (i / (shape[1] * k * k), i / (k * k) % shape[1], i / k % k, i % k);
            let (c, y, x) = (channel / (p * p), channel / p % p, channel % p);
            w[((o * c_in + c) * side + ky * p + y) * side + kx * p + x] = *v;
        }
        let w = self.graph.f32("in.w", &[shape[0], c_in, side, side], &w);
        let b = self.store("in.b", None)?;
        Ok(self.convolution(&["sample", &w, &b], "in", side, p, p * (k / 2)))
    }

    fn convolution(&mut self, inputs: &[&str], name: &str, kernel: usize, stride: usize, padding: usize) -> String {
        let (kernel, stride, padding) = (kernel as i64, stride as i64, padding as i64);
        let attributes =
            [("kernel_shape", Ints(&[kernel; 2])), ("strides", Ints(&[stride; 2])), ("pads", Ints(&[padding; 4]))];
        self.graph.add("Conv", inputs, name, &attributes)
    }

    fn conv(&mut self, name: &str, x: &str, stride: usize) -> Result<String> {
        let kernel = self.parameter(&format!("{name}.w"))?.0[3];
        let (w, b) = (self.store(&format!("{name}.w"), None)?, self.store(&format!("{name}.b"), None)?);
        Ok(self.convolution(&[x, &w, &b], name, kernel, stride, kernel / 2))
    }

    fn norm(&mut self, name: &str, x: &str, channels: usize, side: [usize; 2]) -> Result<String> {
        self.group_norm(name, x, self.config.groups, channels, &side)
    }

    fn norm_silu(&mut self, name: &str, x: &str, channels: usize, side: [usize; 2]) -> Result<String> {
        let y = self.norm(name, x, channels, side)?;
        Ok(self.silu(name, &y))
    }

    fn block(
        &mut self,
        name: &str,
        x: &str,
        from: usize,
        to: usize,
        side: [usize; 2],
        embedding: &str,
    ) -> Result<String> {
        let h = self.norm_silu(&format!("{name}.n1"), x, from, side)?;
        let w = self.store(&format!("{name}.c1.w"), None)?;
        let h = self.convolution(&[&h, &w], &format!("{name}.c1"), 3, 1, 1);
        let e = self.linear(&format!("{name}.e"), embedding)?;
        let axes = self.graph.i64(&[2, 3]);
        let e = self.graph.add("Unsqueeze", &[&e, &axes], &format!("{name}.e/picture"), &[]);
        let h = self.graph.add("Add", &[&h, &e], &format!("{name}/embedded"), &[]);
        let h = self.norm_silu(&format!("{name}.n2"), &h, to, side)?;
        let h = self.conv(&format!("{name}.c2"), &h, 1)?;
        let skip = if from != to { self.conv(&format!("{name}.s"), x, 1)? } else { x.into() };
        Ok(self.graph.add("Add", &[&skip, &h], name, &[]))
    }

    fn attention(&mut self, x: &str, channels: usize, [h, w]: [usize; 2]) -> Result<String> {
        let (c, pixels) = (channels as i64, (h * w) as i64);
        let y = self.norm("attn.n", x, channels, [h, w])?;
        let qkv = self.scaled_qkv(&y, channels)?;
        let flat = self.graph.i64(&[0, 3 * c, pixels]);
        let qkv = self.graph.add("Reshape", &[&qkv, &flat], "attn/qkv", &[]);
        let parts = ["attn/q", "attn/k", "attn/v"].map(String::from);
        let sizes = self.graph.i64(&[c; 3]);
        self.graph.add_many("Split", &[&qkv, &sizes], &parts, &[("axis", Int(1))]);
        let q = self.graph.add("Transpose", &["attn/q"], "attn/q_rows", &[("perm", Ints(&[0, 2, 1]))]);
        let scores = self.graph.add("MatMul", &[&q, "attn/k"], "attn/scores", &[]);
        let weights = self.graph.add("Softmax", &[&scores], "attn/weights", &[("axis", Int(-1))]);
        let weights = self.graph.add("Transpose", &[&weights], "attn/columns", &[("perm", Ints(&[0, 2, 1]))]);
        let mixed = self.graph.add("MatMul", &["attn/v", &weights], "attn/mixed", &[]);
        let picture = self.graph.i64(&[0, c, h as i64, w as i64]);
        let mixed = self.graph.add("Reshape", &[&mixed, &picture], "attn/picture", &[]);
        let out = self.conv("attn.o", &mixed, 1)?;
        Ok(self.graph.add("Add", &[x, &out], "attn", &[]))
    }

    /// The convolution that makes queries, keys and values, with the queries' scale 1/√C in its weights.
    fn scaled_qkv(&mut self, x: &str, channels: usize) -> Result<String> {
        let scale = 1.0 / (channels as f32).sqrt();
        let mut inputs = vec![x.to_string()];
        for name in ["attn.qkv.w", "attn.qkv.b"] {
            let (shape, mut values) = self.parameter(name)?;
            let queries = values.len() / 3;
            values[..queries].iter_mut().for_each(|v| *v *= scale);
            inputs.push(self.graph.f32(name, &shape, &values));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.convolution(&inputs, "attn.qkv", 1, 1, 0))
    }

    fn upsample(&mut self, level: usize, x: &str) -> String {
        let scales = self.graph.f32(&format!("up{level}/scales"), &[4], &[1.0, 1.0, 2.0, 2.0]);
        let attributes = [
            ("mode", Text("nearest")),
            ("coordinate_transformation_mode", Text("asymmetric")),
            ("nearest_mode", Text("floor")),
        ];
        self.graph.add("Resize", &[x, "", &scales], &format!("up{level}/resize"), &attributes)
    }
}
