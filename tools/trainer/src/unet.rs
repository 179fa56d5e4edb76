//! A small class-conditional U-Net.
//!
//! ```text
//! sample [B,C,H,W] → patches [B,C·p²,H/p,W/p] → in
//!   → level 0: residual blocks ─────────────────skip──────────────→ concat, residual blocks → out → sample
//!     → down → level 1: residual blocks ──skip──→ concat, blocks → up ↗
//!        → … → middle: block, attention, block? ↗
//! ```
//! A residual block is group norm + SiLU + convolution, the embedding of time and label added as a bias
//! a channel, group norm + SiLU + convolution, plus the input. Patches (`patch` 2 or more) trade
//! resolution for channels, which small CPUs run faster.

use crate::ops::{conv2d, group_norm, upsample2};
use candle_core::{D, DType, Device, Result, Tensor};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The network's sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnetConfig {
    /// One sample's shape, `[C, H, W]`.
    pub shape: [usize; 3],
    /// The number of classes; one more label stands for "no class".
    pub classes: usize,
    /// The side of the square patches that become channels.
    pub patch: usize,
    /// The channels of the first level.
    pub base: usize,
    /// The channels of each level, in multiples of `base`; each level halves the resolution.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level, on the way down and on the way up.
    pub blocks: usize,
    /// Residual blocks in the middle, 1 or 2.
    pub middle_blocks: usize,
    /// Whether the middle has self-attention.
    pub attention: bool,
    /// Groups of the group norms.
    pub groups: usize,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
enum Init {
    Zero,
    One,
    /// Uniform within ±1/√n.
    FanIn(usize),
    Normal(f32),
}

/// A parameter's name, shape and start.
struct Parameter {
    name: String,
    shape: Vec<usize>,
    init: Init,
}

/// Named tensors, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

impl UnetConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// One line naming the size that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        let [_, h, w] = self.shape;
        let levels = self.multipliers.len();
        anyhow::ensure!(
            levels >= 1 && self.multipliers.iter().all(|m| *m > 0),
            "--mult needs at least one number, each at least 1"
        );
        anyhow::ensure!(
            self.patch > 0 && self.base > 0 && self.groups > 0,
            "--patch, --base and --groups must be at least 1"
        );
        anyhow::ensure!(self.base.is_multiple_of(2), "--base must be even, but is {}", self.base);
        anyhow::ensure!((1..=2).contains(&self.middle_blocks), "--middle must be 1 or 2");
        anyhow::ensure!(self.blocks >= 1, "--blocks must be at least 1");
        let side = self.patch << (levels - 1);
        anyhow::ensure!(
            h.is_multiple_of(side) && w.is_multiple_of(side),
            "pictures of {h}×{w} cannot be halved {} times in patches of {}: sides must be multiples of {side}",
            levels - 1,
            self.patch
        );
        for (name, shape, _) in self.parameters().iter().map(|p| (&p.name, &p.shape, ())) {
            let is_norm =
                shape.len() == 1 && (name.ends_with(".n.w") || name.ends_with(".n1.w") || name.ends_with(".n2.w"));
            anyhow::ensure!(
                !is_norm || shape[0].is_multiple_of(self.groups),
                "{} channels do not split into {} groups: choose --base and --groups that fit",
                shape[0],
                self.groups
            );
        }
        Ok(())
    }

    /// The width of the time and label embedding.
    pub fn embedding(&self) -> usize {
        self.base * 4
    }

    /// Channels of a picture cut into patches.
    pub fn patch_channels(&self) -> usize {
        self.shape[0] * self.patch * self.patch
    }

    /// The channels of each level.
    pub fn channels(&self) -> Vec<usize> {
        self.multipliers.iter().map(|m| m * self.base).collect()
    }

    /// The frequencies of the sinusoidal time embedding.
    pub fn frequencies(&self) -> Vec<f32> {
        let half = self.base / 2;
        (0..half).map(|i| (-(10_000f64.ln()) * i as f64 / (half.max(2) - 1) as f64).exp() as f32).collect()
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut p = Parameters(Vec::new());
        let (embedding, channels) = (self.embedding(), self.channels());
        p.linear("t1", self.base, embedding);
        p.linear("t2", embedding, embedding);
        p.add("label.w", &[self.classes + 1, embedding], Init::Normal(0.5));
        p.conv("in", self.patch_channels(), self.base, 3, false);
        let mut current = self.base;
        for (level, &out) in channels.iter().enumerate() {
            for block in 0..self.blocks {
                p.block(&format!("d{level}.{block}"), current, out, embedding);
                current = out;
            }
            if level + 1 < channels.len() {
                p.conv(&format!("down{level}"), current, current, 3, false);
            }
        }
        for block in 0..self.middle_blocks {
            p.block(&format!("m{block}"), current, current, embedding);
        }
        if self.attention {
            p.norm("attn.n", current);
            p.conv("attn.qkv", current, 3 * current, 1, false);
            p.conv("attn.o", current, current, 1, true);
        }
        for level in (0..channels.len()).rev() {
            for block in 0..self.blocks {
                let skip = if block == 0 { channels[level] } else { 0 };
                p.block(&format!("u{level}.{block}"), current + skip, channels[level], embedding);
                current = channels[level];
            }
            if level > 0 {
                p.conv(&format!("up{level}"), current, channels[level - 1], 3, false);
                current = channels[level - 1];
            }
        }
        p.norm("out.n", current);
        p.conv("out", current, self.patch_channels(), 3, true);
        p.0
    }

    /// Fresh parameters from `rng`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn init(&self, rng: &mut impl Rng, device: &Device) -> Result<Tensors> {
        let mut uniform = || rng.random_range(-1.0f32..1.0);
        self.parameters()
            .into_iter()
            .map(|p| {
                let len = p.shape.iter().product();
                let values: Vec<f32> = match p.init {
                    Init::Zero => vec![0.0; len],
                    Init::One => vec![1.0; len],
                    Init::FanIn(n) => (0..len).map(|_| uniform() / (n as f32).sqrt()).collect(),
                    // the sum of twelve uniform numbers is normal enough to start from
                    Init::Normal(std) => {
                        (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() / 2.0 * std).collect()
                    }
                };
                Ok((p.name, Tensor::from_vec(values, p.shape, device)?))
            })
            .collect()
    }

    /// The name and shape of every parameter.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.parameters().into_iter().map(|p| (p.name, p.shape))
    }

    /// The number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Multiply-adds of one prediction: convolutions, attention and linear layers.
    pub fn multiply_adds(&self) -> usize {
        let side = |pixels: usize, level: usize| (pixels / self.patch) >> level;
        let pixels = |level: usize| side(self.shape[1], level) * side(self.shape[2], level);
        let last = self.multipliers.len() - 1;
        let level_of = |name: &str| -> usize {
            let number = |s: &str| s.split('.').next().and_then(|n| n.parse::<usize>().ok());
            if let Some(level) = name.strip_prefix("down").and_then(number) {
                level + 1
            } else if let Some(level) = name.strip_prefix("up").and_then(number) {
                level - 1
            } else if let Some(level) = name.strip_prefix(['d', 'u']).and_then(number) {
                level
            } else if name.starts_with('m') || name.starts_with("attn") {
                last
            } else {
                0
            }
        };
        let weights = self.parameters().into_iter().map(|p| {
            let count = p.shape.iter().product::<usize>();
            match p.shape.len() {
                4 => count * pixels(level_of(&p.name)),
                2 if p.name != "label.w" => count,
                _ => 0,
            }
        });
        let attention = if self.attention { 2 * pixels(last).pow(2) * self.channels()[last] } else { 0 };
        weights.sum::<usize>() + attention
    }
}

struct Parameters(Vec<Parameter>);

impl Parameters {
    fn add(&mut self, name: &str, shape: &[usize], init: Init) {
        self.0.push(Parameter { name: name.into(), shape: shape.into(), init });
    }

    fn linear(&mut self, name: &str, from: usize, to: usize) {
        self.add(&format!("{name}.w"), &[to, from], Init::FanIn(from));
        self.add(&format!("{name}.b"), &[to], Init::FanIn(from));
    }

    fn conv(&mut self, name: &str, from: usize, to: usize, kernel: usize, zero: bool) {
        let init = if zero { Init::Zero } else { Init::FanIn(from * kernel * kernel) };
        self.add(&format!("{name}.w"), &[to, from, kernel, kernel], init);
        self.add(&format!("{name}.b"), &[to], Init::Zero);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.add(&format!("{name}.w"), &[channels], Init::One);
        self.add(&format!("{name}.b"), &[channels], Init::Zero);
    }

    fn block(&mut self, name: &str, from: usize, to: usize, embedding: usize) {
        self.norm(&format!("{name}.n1"), from);
        // The first convolution's bias is the embedding's linear layer, one a sample.
        self.add(&format!("{name}.c1.w"), &[to, from, 3, 3], Init::FanIn(from * 9));
        self.linear(&format!("{name}.e"), embedding, to);
        self.norm(&format!("{name}.n2"), to);
        self.conv(&format!("{name}.c2"), to, to, 3, true);
        if from != to {
            self.conv(&format!("{name}.s"), from, to, 1, false);
        }
    }
}

/// The network over a set of parameters.
pub struct Unet<'a> {
    config: &'a UnetConfig,
    parameters: &'a Tensors,
}

impl<'a> Unet<'a> {
    /// The network of this configuration over these parameters, which must be those that
    /// [`UnetConfig::init`] names.
    pub fn new(config: &'a UnetConfig, parameters: &'a Tensors) -> Self {
        Unet { config, parameters }
    }

    /// The prediction for x `[B, C, H, W]` at the training steps t `[B]` (f32) under the labels y `[B]`
    /// (u32; `classes` is "no class").
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward(&self, x: &Tensor, t: &Tensor, y: &Tensor) -> Result<Tensor> {
        let embedding = self.linear("t2", &self.linear("t1", &self.time_embedding(t)?)?.silu()?)?;
        let embedding = (embedding + self.get("label.w").index_select(y, 0)?)?.silu()?;
        let levels = self.config.multipliers.len();
        let mut h = self.conv("in", &self.split_patches(x)?, 1, false)?;
        let mut skips = Vec::with_capacity(levels);
        for level in 0..levels {
            for block in 0..self.config.blocks {
                h = self.block(&format!("d{level}.{block}"), &h, &embedding)?;
            }
            skips.push(h.clone());
            if level + 1 < levels {
                h = self.conv(&format!("down{level}"), &h, 2, true)?;
            }
        }
        h = self.block("m0", &h, &embedding)?;
        if self.config.attention {
            h = self.attention(&h)?;
        }
        if self.config.middle_blocks > 1 {
            h = self.block("m1", &h, &embedding)?;
        }
        for level in (0..levels).rev() {
            h = Tensor::cat(&[&h, &skips[level]], 1)?;
            for block in 0..self.config.blocks {
                h = self.block(&format!("u{level}.{block}"), &h, &embedding)?;
            }
            if level > 0 {
                h = self.conv(&format!("up{level}"), &upsample2(&h)?, 1, true)?;
            }
        }
        let h = self.norm("out.n", &h, true)?;
        self.join_patches(&self.conv("out", &h, 1, true)?)
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.parameters[name]
    }

    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.get(&format!("{name}.w")).t()?)?.broadcast_add(self.get(&format!("{name}.b")))
    }

    /// A convolution padded so that a stride of 1 keeps the size.
    fn conv(&self, name: &str, x: &Tensor, stride: usize, input_gradient: bool) -> Result<Tensor> {
        let w = self.get(&format!("{name}.w"));
        conv2d(x, w, self.get(&format!("{name}.b")), stride, w.dim(2)? / 2, input_gradient)
    }

    fn norm(&self, name: &str, x: &Tensor, silu: bool) -> Result<Tensor> {
        let (scale, shift) = (self.get(&format!("{name}.w")), self.get(&format!("{name}.b")));
        group_norm(x, scale, shift, self.config.groups, silu)
    }

    fn block(&self, name: &str, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let h = self.norm(&format!("{name}.n1"), x, true)?;
        let bias = self.linear(&format!("{name}.e"), embedding)?;
        let h = conv2d(&h, self.get(&format!("{name}.c1.w")), &bias, 1, 1, true)?;
        let h = self.norm(&format!("{name}.n2"), &h, true)?;
        let h = self.conv(&format!("{name}.c2"), &h, 1, true)?;
        let has_projection = self.parameters.contains_key(&format!("{name}.s.w"));
        if has_projection { self.conv(&format!("{name}.s"), x, 1, true)? + h } else { x + h }
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let qkv = self.conv("attn.qkv", &self.norm("attn.n", x, false)?, 1, true)?.reshape((b, 3, c, h * w))?;
        let part = |i: usize| qkv.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.t()?.matmul(&k)? * (1.0 / (c as f64).sqrt()))?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mixed = v.matmul(&weights.t()?)?.reshape((b, c, h, w))?;
        x + self.conv("attn.o", &mixed, 1, true)?
    }

    fn time_embedding(&self, t: &Tensor) -> Result<Tensor> {
        let frequencies = self.config.frequencies();
        let frequencies = Tensor::from_vec(frequencies.clone(), (1, frequencies.len()), t.device())?;
        let angle = t.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?;
        Tensor::cat(&[angle.sin()?, angle.cos()?], 1)
    }

    /// `[B, C, H, W]` to `[B, C·p·p, H/p, W/p]`: the channel's offset in the patch varies fastest.
    fn split_patches(&self, x: &Tensor) -> Result<Tensor> {
        let (p, (b, c, h, w)) = (self.config.patch, x.dims4()?);
        if p == 1 {
            return Ok(x.clone());
        }
        x.reshape(&[b, c, h / p, p, w / p, p][..])?.permute([0, 1, 3, 5, 2, 4])?.contiguous()?.reshape((
            b,
            c * p * p,
            h / p,
            w / p,
        ))
    }

    fn join_patches(&self, x: &Tensor) -> Result<Tensor> {
        let (p, (b, c, h, w)) = (self.config.patch, x.dims4()?);
        if p == 1 {
            return Ok(x.clone());
        }
        x.reshape(&[b, c / (p * p), p, p, h, w][..])?.permute([0, 1, 4, 2, 5, 3])?.contiguous()?.reshape((
            b,
            c / (p * p),
            h * p,
            w * p,
        ))
    }
}
