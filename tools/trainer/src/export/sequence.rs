//! The U-Net of sequences as an ONNX graph, of one-dimensional convolutions (`Conv` with weights `[out, in, k]`).
//!
//! Group norm and SiLU have the forms that pictures' networks have (see [`super::unet`]). The scale and the shift
//! of FiLM are a Gemm of the embedding each, an Unsqueeze to `[N, C, 1]`, and a Mul and an Add.

use super::graph::Attribute::*;
use super::layers::Writer;
use crate::network::{Block, SequenceConfig, frequencies};
use anyhow::Result;
use onnx::pb::tensor_proto::DataType;

impl Writer<'_, SequenceConfig> {
    /// Writes the network.
    pub fn sequence(&mut self) -> Result<()> {
        let config = self.config;
        let levels = config.channels().len();
        let swap = [("perm", Ints(&[0, 2, 1]))];
        let h = self.graph.add("Transpose", &["sample"], "channels", &swap);
        let (time, h) = if config.prefix > 0 { self.mark_what_is_clean(&h) } else { (self.time_column(), h) };
        let embedding = self.embedding(&time)?;
        let blocks = config.residual_blocks();
        let mut blocks = blocks.iter();
        let mut run = |writer: &mut Self, h: &str| -> Result<String> {
            writer.block(blocks.next().expect("as many blocks as the network has"), h, &embedding)
        };
        let mut h = self.conv("in", &h, 1)?;
        let mut skips = Vec::with_capacity(levels);
        for level in 0..levels {
            for _ in 0..config.blocks {
                h = run(self, &h)?;
            }
            skips.push(h.clone());
            if level + 1 < levels {
                h = self.conv(&format!("down{level}"), &h, 2)?;
            }
        }
        h = run(self, &h)?;
        for level in (0..levels).rev() {
            h = self.graph.add("Concat", &[&h, &skips[level]], &format!("u{level}/concat"), &[("axis", Int(1))]);
            for _ in 0..config.blocks {
                h = run(self, &h)?;
            }
            if level > 0 {
                let scales = self.graph.f32(&format!("up{level}/scales"), &[3], &[1.0, 1.0, 2.0]);
                let attributes = [
                    ("mode", Text("nearest")),
                    ("coordinate_transformation_mode", Text("asymmetric")),
                    ("nearest_mode", Text("floor")),
                ];
                h = self.graph.add("Resize", &[&h, "", &scales], &format!("up{level}/resize"), &attributes);
                h = self.conv(&format!("up{level}"), &h, 1)?;
            }
        }
        let h = self.norm_silu("out.n", &h, config.channels()[0], 0)?;
        let h = self.conv("out", &h, 1)?;
        self.graph.add("Transpose", &[&h], "prediction", &swap);
        Ok(())
    }

    /// The greatest of the times `[N, T]`, as `[N, 1]`, and the sequence with one channel more: 1 where a step's time is less.
    fn mark_what_is_clean(&mut self, x: &str) -> (String, String) {
        let axes = self.graph.i64(&[1]);
        let time = self.graph.add("ReduceMax", &["timestep", &axes], "time/greatest", &[("keepdims", Int(1))]);
        let less = self.graph.add("Less", &["timestep", &time], "clean/less", &[]);
        let mark = self.graph.add("Cast", &[&less], "clean/mark", &[("to", Int(DataType::Float as i64))]);
        let channel = self.graph.add("Unsqueeze", &[&mark, &axes], "clean/channel", &[]);
        (time, self.graph.add("Concat", &[x, &channel], "clean/concat", &[("axis", Int(1))]))
    }

    /// The embedding `[N, E]` of the times `[N, 1]` and the condition, after its SiLU.
    fn embedding(&mut self, time: &str) -> Result<String> {
        let mut sum = self.time(time, &frequencies(self.config.base))?;
        if self.config.conditions > 0 {
            let hidden = self.linear("c1", crate::sequences::CONDITION)?;
            let hidden = self.silu("c1", &hidden);
            let condition = self.linear("c2", &hidden)?;
            sum = self.graph.add("Add", &[&sum, &condition], "embedding", &[]);
        }
        Ok(self.silu("embedding", &sum))
    }

    fn conv(&mut self, name: &str, x: &str, stride: usize) -> Result<String> {
        let (shape, _) = self.parameter(&format!("{name}.w"))?;
        let [out, from, 1, kernel] = shape[..] else { anyhow::bail!("{name} is no convolution of height 1") };
        let w = self.store(&format!("{name}.w"), Some(&[out, from, kernel]))?;
        let b = self.store(&format!("{name}.b"), None)?;
        let padding = (kernel / 2) as i64;
        let attributes = [
            ("kernel_shape", Ints(&[kernel as i64])),
            ("strides", Ints(&[stride as i64])),
            ("pads", Ints(&[padding, padding])),
        ];
        Ok(self.graph.add("Conv", &[x, &w, &b], name, &attributes))
    }

    fn norm_silu(&mut self, name: &str, x: &str, channels: usize, level: usize) -> Result<String> {
        let y = self.group_norm(name, x, self.config.groups, channels, &[self.config.shape[0] >> level])?;
        Ok(self.silu(name, &y))
    }

    fn block(&mut self, block: &Block, x: &str, embedding: &str) -> Result<String> {
        let Block { name, from, to, level } = block;
        let h = self.conv(&format!("{name}.c1"), x, 1)?;
        let h = self.norm_silu(&format!("{name}.n1"), &h, *to, *level)?;
        let scale = self.channels(&format!("{name}.scale"), embedding)?;
        let shift = self.channels(&format!("{name}.shift"), embedding)?;
        let h = self.graph.add("Mul", &[&h, &scale], &format!("{name}/scaled"), &[]);
        let h = self.graph.add("Add", &[&h, &shift], &format!("{name}/shifted"), &[]);
        let h = self.conv(&format!("{name}.c2"), &h, 1)?;
        let h = self.norm_silu(&format!("{name}.n2"), &h, *to, *level)?;
        let skip = if from != to { self.conv(&format!("{name}.s"), x, 1)? } else { x.into() };
        Ok(self.graph.add("Add", &[&skip, &h], name, &[]))
    }

    /// A number a channel, `[N, C, 1]`, from the embedding.
    fn channels(&mut self, name: &str, embedding: &str) -> Result<String> {
        let vector = self.linear(name, embedding)?;
        let axes = self.graph.i64(&[2]);
        Ok(self.graph.add("Unsqueeze", &[&vector, &axes], &format!("{name}/channels"), &[]))
    }
}
