//! The U-Net as an ONNX graph.
//!
//! The forms are those that PyTorch's exporters make and runtimes know best: group norm is Reshape,
//! InstanceNormalization, Reshape, Mul, Add (the native operator costs tract twice the allocations);
//! SiLU is Sigmoid and Mul. Cutting the sample into patches is folded into the first convolution, which
//! becomes one of twice the size and stride; putting it together again is DepthToSpace.

use super::graph::{Attribute::*, GraphBuilder, value_info};
use crate::checkpoint::Header;
use crate::unet::{Tensors, UnetConfig};
use anyhow::{Context, Result};
use candle_core::Device;
use edgegen::config::{SchedulerConfig, Spacing};
use tract_onnx::pb::{ModelProto, OperatorSetIdProto, StringStringEntryProto, tensor_proto::DataType};

/// What the model's metadata recommends to whoever samples from it.
#[derive(Clone, Debug)]
pub struct Recommendation {
    /// The sampler's name.
    pub sampler: String,
    /// Solver steps.
    pub steps: usize,
    /// The guidance weight.
    pub guidance: f32,
    /// The step spacing's name.
    pub spacing: String,
}

const OPSET: i64 = 21;
/// The IR version that opset 21 came with.
const IR_VERSION: i64 = 10;

/// The network of `header` with these parameters as an ONNX model: inputs `sample` `[N, C, H, W]` and
/// `timestep` `[N]`, float32, and `class_labels` `[N]`, int64; output `prediction` `[N, C, H, W]`. The
/// metadata follow edgegen's model contract.
///
/// # Errors
/// When a parameter is missing.
pub fn to_onnx(header: &Header, parameters: &Tensors, recommendation: &Recommendation) -> Result<ModelProto> {
    let mut writer = Writer { graph: GraphBuilder::default(), config: &header.unet, parameters };
    writer.unet()?;
    let [c, h, w] = header.unet.shape.map(Some);
    let sample = [None, c, h, w];
    let inputs = vec![
        value_info("sample", DataType::Float, &sample),
        value_info("timestep", DataType::Float, &[None]),
        value_info("class_labels", DataType::Int64, &[None]),
    ];
    let outputs = vec![value_info("prediction", DataType::Float, &sample)];
    Ok(ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "edgegen-trainer".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(writer.graph.finish("unet", inputs, outputs)),
        metadata_props: metadata(header, recommendation)?,
        ..Default::default()
    })
}

/// The layers that an int8 form leaves in float: the first, the last, and the shortcuts of the blocks after the
/// last skip connection. They pass the sample on to the output, and at low noise levels 8 bits are too coarse for
/// it: of the shipped network's error from rounding all layers, more than half came from their inputs. They are
/// 3 % of its multiply-adds.
pub fn float_layers(config: &UnetConfig) -> Vec<String> {
    let shortcuts = (0..config.blocks).map(|block| format!("u0.{block}.s"));
    ["in", "out"].map(String::from).into_iter().chain(shortcuts).collect()
}

fn metadata(header: &Header, recommendation: &Recommendation) -> Result<Vec<StringStringEntryProto>> {
    let known = serde_json::from_value::<Spacing>(serde_json::Value::String(recommendation.spacing.clone()));
    known.with_context(|| format!("unknown step spacing '{}'", recommendation.spacing))?;
    // what diffusers, which does not know every spacing, is to use
    let mut scheduler = SchedulerConfig { timestep_spacing: Spacing::Trailing, ..header.scheduler.clone() };
    scheduler.other.insert("_class_name".into(), "DDIMScheduler".into());
    let entries = [
        ("edgegen.scheduler", scheduler.to_json()),
        ("edgegen.classes", serde_json::to_string(&header.class_names)?),
        ("edgegen.null_class", header.unet.classes.to_string()),
        ("edgegen.value_range", "[-1, 1]".into()),
        ("edgegen.sampler", recommendation.sampler.clone()),
        ("edgegen.spacing", recommendation.spacing.clone()),
        ("edgegen.steps", recommendation.steps.to_string()),
        ("edgegen.guidance", recommendation.guidance.to_string()),
        ("edgegen.role.sample", "sample".into()),
        ("edgegen.role.time", "timestep".into()),
        ("edgegen.role.class", "class_labels".into()),
        ("edgegen.training", serde_json::to_string(&header.train)?),
        ("edgegen.trained_steps", header.step.to_string()),
    ];
    Ok(entries.into_iter().map(|(key, value)| StringStringEntryProto { key: key.into(), value }).collect())
}

struct Writer<'a> {
    graph: GraphBuilder,
    config: &'a UnetConfig,
    parameters: &'a Tensors,
}

impl Writer<'_> {
    fn unet(&mut self) -> Result<()> {
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

    /// A parameter's shape and values.
    fn parameter(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = self.parameters.get(name).with_context(|| format!("the checkpoint has no parameter {name}"))?;
        Ok((tensor.dims().to_vec(), tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?))
    }

    /// Stores a parameter, in `shape` if one is given.
    fn store(&mut self, name: &str, shape: Option<&[usize]>) -> Result<String> {
        let (own, values) = self.parameter(name)?;
        Ok(self.graph.f32(name, shape.unwrap_or(&own), &values))
    }

    fn silu(&mut self, name: &str, x: &str) -> String {
        let sigmoid = self.graph.add("Sigmoid", &[x], &format!("{name}/sigmoid"), &[]);
        self.graph.add("Mul", &[x, &sigmoid], &format!("{name}/silu"), &[])
    }

    fn linear(&mut self, name: &str, x: &str) -> Result<String> {
        let (w, b) = (self.store(&format!("{name}.w"), None)?, self.store(&format!("{name}.b"), None)?);
        Ok(self.graph.add("Gemm", &[x, &w, &b], name, &[("transB", Int(1))]))
    }

    /// The embedding `[N, E]` of time and label, after its SiLU.
    fn embedding(&mut self) -> Result<String> {
        let frequencies = self.config.frequencies();
        let frequencies = self.graph.f32("time/frequencies", &[1, frequencies.len()], &frequencies);
        let axes = self.graph.i64(&[1]);
        let t = self.graph.add("Unsqueeze", &["timestep", &axes], "time/column", &[]);
        let angle = self.graph.add("Mul", &[&t, &frequencies], "time/angle", &[]);
        let sin = self.graph.add("Sin", &[&angle], "time/sin", &[]);
        let cos = self.graph.add("Cos", &[&angle], "time/cos", &[]);
        let waves = self.graph.add("Concat", &[&sin, &cos], "time/waves", &[("axis", Int(1))]);
        let hidden = self.linear("t1", &waves)?;
        let hidden = self.silu("t1", &hidden);
        let time = self.linear("t2", &hidden)?;
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

    fn norm(&mut self, name: &str, x: &str, channels: usize, [h, w]: [usize; 2]) -> Result<String> {
        let groups = self.config.groups;
        let ones = self.graph_once("norm/one", groups, 1.0);
        let zeros = self.graph_once("norm/zero", groups, 0.0);
        let grouped = self.graph.i64(&[0, groups as i64, -1]);
        let flat = self.graph.add("Reshape", &[x, &grouped], &format!("{name}/groups"), &[]);
        let attributes = [("epsilon", Float(1e-5))];
        let unit =
            self.graph.add("InstanceNormalization", &[&flat, &ones, &zeros], &format!("{name}/unit"), &attributes);
        let shape = self.graph.i64(&[0, channels as i64, h as i64, w as i64]);
        let unit = self.graph.add("Reshape", &[&unit, &shape], &format!("{name}/picture"), &[]);
        let scale = self.store(&format!("{name}.w"), Some(&[channels, 1, 1]))?;
        let shift = self.store(&format!("{name}.b"), Some(&[channels, 1, 1]))?;
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
