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

use super::Encoded;
use super::layers::{Init, Layers, Parameter, Parameters, frequencies};
use crate::ops::{conv2d, upsample2};
use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

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
        frequencies(self.base)
    }

    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let mut p = Parameters::default();
        let (embedding, channels) = (self.embedding(), self.channels());
        p.linear("t1", self.base, embedding);
        p.linear("t2", embedding, embedding);
        p.add("label.w", &[self.classes + 1, embedding], Init::Normal(0.5));
        p.conv("in", self.patch_channels(), self.base, [3, 3], false);
        let mut current = self.base;
        for (level, &out) in channels.iter().enumerate() {
            for block in 0..self.blocks {
                residual(&mut p, &format!("d{level}.{block}"), current, out, embedding);
                current = out;
            }
            if level + 1 < channels.len() {
                p.conv(&format!("down{level}"), current, current, [3, 3], false);
            }
        }
        for block in 0..self.middle_blocks {
            residual(&mut p, &format!("m{block}"), current, current, embedding);
        }
        if self.attention {
            p.norm("attn.n", current, Init::One);
            p.conv("attn.qkv", current, 3 * current, [1, 1], false);
            p.conv("attn.o", current, current, [1, 1], true);
        }
        for level in (0..channels.len()).rev() {
            for block in 0..self.blocks {
                let skip = if block == 0 { channels[level] } else { 0 };
                residual(&mut p, &format!("u{level}.{block}"), current + skip, channels[level], embedding);
                current = channels[level];
            }
            if level > 0 {
                p.conv(&format!("up{level}"), current, channels[level - 1], [3, 3], false);
                current = channels[level - 1];
            }
        }
        p.norm("out.n", current, Init::One);
        p.conv("out", current, self.patch_channels(), [3, 3], true);
        p.0
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

fn residual(p: &mut Parameters, name: &str, from: usize, to: usize, embedding: usize) {
    p.norm(&format!("{name}.n1"), from, Init::One);
    // The first convolution's bias is the embedding's linear layer, one a sample.
    p.add(&format!("{name}.c1.w"), &[to, from, 3, 3], Init::FanIn(from * 9));
    p.linear(&format!("{name}.e"), embedding, to);
    p.norm(&format!("{name}.n2"), to, Init::One);
    p.conv(&format!("{name}.c2"), to, to, [3, 3], true);
    if from != to {
        p.conv(&format!("{name}.s"), from, to, [1, 1], false);
    }
}

impl UnetConfig {
    /// The half before the way up, for x `[B, C, H, W]` at the training steps t `[B]` (f32) under the labels y `[B]`
    /// (u32; `classes` is "no class").
    ///
    /// # Errors
    /// When a shape does not fit.
    pub(super) fn encode(&self, net: &Layers, x: &Tensor, t: &Tensor, y: &Tensor) -> Result<Encoded> {
        let embedding = net.time(t, self.base)?;
        let embedding = (embedding + net.get("label.w").index_select(y, 0)?)?.silu()?;
        let levels = self.multipliers.len();
        // a sample that is itself computed, as a network's is whose samples are judged, has a gradient
        let mut h = net.conv("in", &self.split_patches(x)?, 1, x.track_op())?;
        let mut skips = Vec::with_capacity(levels);
        for level in 0..levels {
            for block in 0..self.blocks {
                h = self.block(net, &format!("d{level}.{block}"), &h, &embedding)?;
            }
            skips.push(h.clone());
            if level + 1 < levels {
                h = net.conv(&format!("down{level}"), &h, 2, true)?;
            }
        }
        h = self.block(net, "m0", &h, &embedding)?;
        if self.attention {
            h = self.attention(net, &h)?;
        }
        if self.middle_blocks > 1 {
            h = self.block(net, "m1", &h, &embedding)?;
        }
        Ok(Encoded { embedding, skips, middle: h })
    }

    /// The prediction from what [`encode`](Self::encode) gives.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub(super) fn decode(&self, net: &Layers, encoded: Encoded) -> Result<Tensor> {
        let Encoded { embedding, skips, middle: mut h } = encoded;
        for (level, skip) in skips.iter().enumerate().rev() {
            h = Tensor::cat(&[&h, skip], 1)?;
            for block in 0..self.blocks {
                h = self.block(net, &format!("u{level}.{block}"), &h, &embedding)?;
            }
            if level > 0 {
                h = net.conv(&format!("up{level}"), &upsample2(&h)?, 1, true)?;
            }
        }
        let h = net.norm("out.n", &h, true)?;
        self.join_patches(&net.conv("out", &h, 1, true)?)
    }

    fn block(&self, net: &Layers, name: &str, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let h = net.norm(&format!("{name}.n1"), x, true)?;
        let bias = net.linear(&format!("{name}.e"), embedding)?;
        let h = conv2d(&h, net.get(&format!("{name}.c1.w")), &bias, 1, [1, 1], true)?;
        let h = net.norm(&format!("{name}.n2"), &h, true)?;
        let h = net.conv(&format!("{name}.c2"), &h, 1, true)?;
        let has_projection = net.has(&format!("{name}.s.w"));
        if has_projection { net.conv(&format!("{name}.s"), x, 1, true)? + h } else { x + h }
    }

    fn attention(&self, net: &Layers, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let qkv = net.conv("attn.qkv", &net.norm("attn.n", x, false)?, 1, true)?.reshape((b, 3, c, h * w))?;
        let part = |i: usize| qkv.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.t()?.matmul(&k)? * (1.0 / (c as f64).sqrt()))?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mixed = v.matmul(&weights.t()?)?.reshape((b, c, h, w))?;
        x + net.conv("attn.o", &mixed, 1, true)?
    }

    /// `[B, C, H, W]` to `[B, C·p·p, H/p, W/p]`: the channel's offset in the patch varies fastest.
    fn split_patches(&self, x: &Tensor) -> Result<Tensor> {
        let (p, (b, c, h, w)) = (self.patch, x.dims4()?);
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
        let (p, (b, c, h, w)) = (self.patch, x.dims4()?);
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
