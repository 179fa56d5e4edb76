//! A small U-Net along the time of sequences, under a vector of numbers: what a diffusion policy is
//! (arXiv 2303.04137, its `ConditionalUnet1D`).
//!
//! ```text
//! sequence [B,T,D] → [B,D,1,T] → in
//!   → level 0: residual blocks ─────────────────skip──────────────→ concat, residual blocks → out → sequence
//!     → down → level 1: residual blocks ──skip──→ concat, blocks → up ↗
//!        → … → middle: residual block           ↗
//! ```
//! A residual block is convolution + group norm + SiLU, a scale and a shift a channel from the embedding of time and
//! condition (FiLM), convolution + group norm + SiLU, plus the input. Convolutions are of height 1.
//!
//! A network of prefixes takes a time for each step of the sequence. Those that are told less than the greatest are clean: a
//! channel beside the sequence's marks them by 1, and FiLM is told the greatest, which is that of the others.

use super::Encoded;
use super::layers::{Init, Layers, Parameter, Parameters};
use crate::ops::upsample2_wide;
use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

/// The network's sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceConfig {
    /// One sample's shape, `[T, D]`.
    pub shape: [usize; 2],
    /// The numbers that it is conditioned on; 0 for none.
    pub conditions: usize,
    /// The channels of the first level.
    pub base: usize,
    /// The channels of each level, in multiples of `base`; each level halves the length.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level, on the way down and on the way up.
    pub blocks: usize,
    /// The convolutions' length.
    pub kernel: usize,
    /// Groups of the group norms.
    pub groups: usize,
    /// The most steps at its beginning that it may be given clean, told so by a time for each step; 0 if it takes one time.
    #[serde(default)]
    pub prefix: usize,
}

/// One residual block: its name, its channels before and after, and its level.
pub struct Block {
    pub name: String,
    pub from: usize,
    pub to: usize,
    pub level: usize,
}

impl SequenceConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// One line naming the size that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        let [length, width] = self.shape;
        let levels = self.multipliers.len();
        anyhow::ensure!(length > 0 && width > 0, "sequences of shape {:?} hold no numbers", self.shape);
        anyhow::ensure!(
            self.prefix < length,
            "--prefix {} leaves nothing of sequences of {length} steps to learn: give at most {}",
            self.prefix,
            length - 1
        );
        anyhow::ensure!(
            levels >= 1 && self.multipliers.iter().all(|m| *m > 0),
            "--mult needs at least one number, each at least 1"
        );
        anyhow::ensure!(self.base > 0 && self.groups > 0, "--base and --groups must be at least 1");
        anyhow::ensure!(self.base.is_multiple_of(2), "--base must be even, but is {}", self.base);
        anyhow::ensure!(self.blocks >= 1, "--blocks must be at least 1");
        anyhow::ensure!(!self.kernel.is_multiple_of(2), "--kernel must be odd, but is {}", self.kernel);
        let step = 1 << (levels - 1);
        anyhow::ensure!(
            length.is_multiple_of(step),
            "sequences of {length} steps cannot be halved {} times: the length must be a multiple of {step}",
            levels - 1
        );
        let odd = self.channels().into_iter().find(|c| !c.is_multiple_of(self.groups));
        anyhow::ensure!(
            odd.is_none(),
            "{} channels do not split into {} groups: choose --base and --groups that fit",
            odd.unwrap_or(0),
            self.groups
        );
        Ok(())
    }

    /// The channels that the sequence enters with: its own, and the mark of what is clean.
    pub fn channels_in(&self) -> usize {
        self.shape[1] + usize::from(self.prefix > 0)
    }

    /// The width of the embedding of time and condition.
    pub fn embedding(&self) -> usize {
        self.base * 4
    }

    /// The channels of each level.
    pub fn channels(&self) -> Vec<usize> {
        self.multipliers.iter().map(|m| m * self.base).collect()
    }

    /// Every residual block, in the order in which they run.
    pub fn residual_blocks(&self) -> Vec<Block> {
        let channels = self.channels();
        let last = channels.len() - 1;
        let (mut blocks, mut current) = (Vec::new(), self.base);
        let mut add = |name: String, from: usize, to: usize, level: usize| {
            blocks.push(Block { name, from, to, level });
            to
        };
        for (level, &out) in channels.iter().enumerate() {
            for block in 0..self.blocks {
                current = add(format!("d{level}.{block}"), current, out, level);
            }
        }
        current = add("m0".into(), current, current, last);
        for level in (0..channels.len()).rev() {
            for block in 0..self.blocks {
                let skip = if block == 0 { channels[level] } else { 0 };
                current = add(format!("u{level}.{block}"), current + skip, channels[level], level);
            }
            if level > 0 {
                // `up` brings the channels down
                current = channels[level - 1];
            }
        }
        blocks
    }

    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let mut p = Parameters::default();
        let (embedding, channels, kernel) = (self.embedding(), self.channels(), [1, self.kernel]);
        p.linear("t1", self.base, embedding);
        p.linear("t2", embedding, embedding);
        if self.conditions > 0 {
            p.linear("c1", self.conditions, embedding);
            p.linear("c2", embedding, embedding);
        }
        p.conv("in", self.channels_in(), self.base, kernel, false);
        for level in 1..channels.len() {
            p.conv(&format!("down{}", level - 1), channels[level - 1], channels[level - 1], [1, 3], false);
            p.conv(&format!("up{level}"), channels[level], channels[level - 1], [1, 3], false);
        }
        for Block { name, from, to, .. } in self.residual_blocks() {
            p.conv(&format!("{name}.c1"), from, to, kernel, false);
            p.norm(&format!("{name}.n1"), to, Init::One);
            p.add(&format!("{name}.scale.w"), &[to, embedding], Init::FanIn(embedding));
            p.add(&format!("{name}.scale.b"), &[to], Init::One);
            p.linear(&format!("{name}.shift"), embedding, to);
            p.conv(&format!("{name}.c2"), to, to, kernel, false);
            // a fresh block adds nothing
            p.norm(&format!("{name}.n2"), to, Init::Zero);
            if from != to {
                p.conv(&format!("{name}.s"), from, to, [1, 1], false);
            }
        }
        p.norm("out.n", channels[0], Init::One);
        p.conv("out", channels[0], self.shape[1], [1, 1], true);
        p.0
    }

    /// Multiply-adds of one prediction.
    pub fn multiply_adds(&self) -> usize {
        let length = |level: usize| self.shape[0] >> level;
        let level_of = |name: &str| -> usize {
            let number = |s: &str| s.split('.').next().and_then(|n| n.parse::<usize>().ok());
            if let Some(level) = name.strip_prefix("down").and_then(number) {
                level + 1
            } else if let Some(level) = name.strip_prefix("up").and_then(number) {
                level - 1
            } else if name.starts_with("m0") {
                self.multipliers.len() - 1
            } else {
                name.strip_prefix(['d', 'u']).and_then(number).unwrap_or(0)
            }
        };
        let of = |p: Parameter| match p.shape.len() {
            4 => p.shape.iter().product::<usize>() * length(level_of(&p.name)),
            2 => p.shape.iter().product(),
            _ => 0,
        };
        self.parameters().into_iter().map(of).sum()
    }

    /// The half before the way up.
    pub(super) fn encode(&self, net: &Layers, x: &Tensor, t: &Tensor, given: Option<&Tensor>) -> Result<Encoded> {
        let input_gradient = x.track_op();
        let mut x = x.transpose(1, 2)?;
        let mut time = t.clone();
        if self.prefix > 0 {
            time = t.max(1)?;
            let clean = t.broadcast_lt(&time.unsqueeze(1)?)?.to_dtype(DType::F32)?;
            x = Tensor::cat(&[&x, &clean.unsqueeze(1)?], 1)?;
        }
        let mut embedding = net.time(&time, self.base)?;
        if let Some(numbers) = given {
            embedding = (embedding + net.linear("c2", &net.linear("c1", numbers)?.silu()?)?)?;
        }
        let embedding = embedding.silu()?;
        let levels = self.multipliers.len();
        let mut h = net.conv("in", &x.unsqueeze(2)?.contiguous()?, 1, input_gradient)?;
        let mut skips = Vec::with_capacity(levels);
        for level in 0..levels {
            for i in 0..self.blocks {
                h = self.block(net, &format!("d{level}.{i}"), &h, &embedding)?;
            }
            skips.push(h.clone());
            if level + 1 < levels {
                h = net.conv(&format!("down{level}"), &h, 2, true)?;
            }
        }
        h = self.block(net, "m0", &h, &embedding)?;
        Ok(Encoded { embedding, skips, middle: h })
    }

    /// The prediction from what [`encode`](Self::encode) gives.
    pub(super) fn decode(&self, net: &Layers, encoded: Encoded) -> Result<Tensor> {
        let Encoded { embedding, skips, middle: mut h } = encoded;
        for (level, skip) in skips.iter().enumerate().rev() {
            h = Tensor::cat(&[&h, skip], 1)?;
            for i in 0..self.blocks {
                h = self.block(net, &format!("u{level}.{i}"), &h, &embedding)?;
            }
            if level > 0 {
                h = net.conv(&format!("up{level}"), &upsample2_wide(&h)?, 1, true)?;
            }
        }
        net.conv("out", &net.norm("out.n", &h, true)?, 1, true)?.squeeze(2)?.transpose(1, 2)?.contiguous()
    }

    fn block(&self, net: &Layers, name: &str, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let channel = |part: &str| net.linear(&format!("{name}.{part}"), embedding)?.unsqueeze(2)?.unsqueeze(3);
        let h = net.norm(&format!("{name}.n1"), &net.conv(&format!("{name}.c1"), x, 1, true)?, true)?;
        let h = h.broadcast_mul(&channel("scale")?)?.broadcast_add(&channel("shift")?)?;
        let h = net.norm(&format!("{name}.n2"), &net.conv(&format!("{name}.c2"), &h, 1, true)?, true)?;
        if net.has(&format!("{name}.s.w")) { net.conv(&format!("{name}.s"), x, 1, true)? + h } else { x + h }
    }
}
