//! The trained network that a student is distilled from: a checkpoint, or a float file that this trainer exported.

use crate::checkpoint::{Checkpoint, Header};
use crate::network::{NetworkConfig, SequenceConfig, Tensors, UnetConfig};
use crate::train::TrainConfig;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use edgegen::config::{PredictionType, SchedulerConfig};
use onnx::pb::{ModelProto, TensorProto, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto};
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// A trained network.
pub struct Teacher {
    /// What it is.
    pub header: Header,
    /// Its weights: of a checkpoint their moving average.
    pub weights: Tensors,
}

impl Teacher {
    /// Reads a teacher from a checkpoint or an ONNX file.
    ///
    /// # Errors
    /// One line that says why it cannot be one.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let is_onnx = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        let teacher = if is_onnx {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read the teacher {}", path.display()))?;
            from_onnx(&bytes, device).with_context(|| format!("the teacher {}", path.display()))?
        } else {
            let Checkpoint { header, ema, .. } = Checkpoint::load(path, device)?;
            Teacher { header, weights: ema }
        };
        teacher.check().with_context(|| format!("the teacher {}", path.display()))?;
        Ok(teacher)
    }

    fn check(&self) -> Result<()> {
        let header = &self.header;
        ensure!(
            header.distill.is_none(),
            "is a student itself: give the network that it was distilled from, or go on with it by --resume"
        );
        match header.scheduler.prediction_type {
            PredictionType::V | PredictionType::Flow => (),
            other => bail!(
                "predicts {other:?}, which says nothing of the sample where all is noise: train it with --prediction v or --path flow"
            ),
        }
        ensure!(
            header.network.prefix() == 0,
            "takes a time for each step of a sequence (--prefix), which is not distilled: train it without"
        );
        for (name, weight) in &self.weights {
            let sum = weight.flatten_all()?.abs()?.sum_all()?.to_scalar::<f32>()?;
            ensure!(sum.is_finite(), "has weights that are not finite, in {name}");
        }
        Ok(())
    }
}

/// The network of a float file that [`to_onnx`](crate::export::to_onnx) wrote.
fn from_onnx(bytes: &[u8], device: &Device) -> Result<Teacher> {
    let model = ModelProto::decode(bytes).context("is not an ONNX file")?;
    let said: BTreeMap<&str, &str> =
        model.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let read = |key: &str| said.get(key).with_context(|| format!("was not exported by this trainer: it has no {key}"));
    let train: TrainConfig = serde_json::from_str(read("edgegen.training")?).context("its edgegen.training")?;
    let graph = model.graph.as_ref().context("has no graph")?;
    let file = File { tensors: graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect() };
    ensure!(
        !file.tensors.keys().any(|name| name.ends_with("/quantized")),
        "is an int8 file, whose weights are rounded: give the float one"
    );
    let shape = sample_shape(&model).context("its input sample has no fixed shape")?;
    let network = file.network(&shape, said.get("edgegen.prefix").copied())?;
    network.check()?;
    let mut scheduler = SchedulerConfig::from_json(read("edgegen.scheduler")?)?;
    // what its export adds
    scheduler.tuned_timesteps.clear();
    scheduler.fitted_steps.clear();
    if !scheduler.is_flow() {
        scheduler.class = Default::default();
    }
    let json = |key: &str| said.get(key).map(|text| serde_json::from_str(text).with_context(|| format!("its {key}")));
    let normalization = said.get("edgegen.normalization").map(|text| serde_json::from_str(text));
    let distill = said.get("edgegen.distilled").map(|text| serde_json::from_str(text));
    let header = Header {
        class_names: json("edgegen.classes").transpose()?.unwrap_or_default(),
        normalization: normalization.transpose().context("its edgegen.normalization")?,
        distill: distill.transpose().context("its edgegen.distilled")?,
        step: read("edgegen.trained_steps")?.parse().context("its edgegen.trained_steps")?,
        seconds: 0.0,
        scheduler,
        train,
        network,
    };
    let weights = header.network.shapes().map(|(name, shape)| {
        let values = file.weight(&header.network, &name, &shape)?;
        Ok((name, Tensor::from_vec(values, shape, device)?))
    });
    let weights = weights.collect::<Result<_>>()?;
    Ok(Teacher { header, weights })
}

/// The sample's shape without its batch.
fn sample_shape(model: &ModelProto) -> Option<Vec<usize>> {
    let input = model.graph.as_ref()?.input.iter().find(|i| i.name == crate::sequences::SAMPLE)?;
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    let dims = tensor.shape.as_ref()?.dim.iter().skip(1).map(|d| match d.value {
        Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
        _ => None,
    });
    dims.collect()
}

/// The stored tensors of a file, by name.
struct File<'a> {
    tensors: BTreeMap<&'a str, &'a TensorProto>,
}

impl File<'_> {
    fn dims(&self, name: &str) -> Result<Vec<usize>> {
        let tensor = self.tensors.get(name).with_context(|| format!("has no weights {name}"))?;
        tensor.dims.iter().map(|d| usize::try_from(*d).context("has a dimension below 0")).collect()
    }

    fn dim(&self, name: &str, axis: usize) -> Result<usize> {
        self.dims(name)?.get(axis).copied().with_context(|| format!("{name} has too few dimensions"))
    }

    /// The network whose weights these are.
    fn network(&self, shape: &[usize], prefix: Option<&str>) -> Result<NetworkConfig> {
        let has = |name: String| self.tensors.contains_key(name.as_str());
        let levels = (0..).take_while(|level| has(format!("d{level}.0.c2.w"))).count();
        let blocks = (0..).take_while(|block| has(format!("d0.{block}.c2.w"))).count();
        let (base, groups) = (self.dim("in.w", 0)?, self.dim("norm/one", 0)?);
        let multiplier = |level: usize| Ok(self.dim(&format!("d{level}.0.c2.w"), 0)? / base.max(1));
        let multipliers = (0..levels).map(multiplier).collect::<Result<Vec<_>>>()?;
        Ok(match *shape {
            [channels, height, width] => NetworkConfig::Unet(UnetConfig {
                shape: [channels, height, width],
                classes: self.dim("label.w", 0)?.saturating_sub(1),
                patch: self.dim("in.w", 3)? / 3,
                base,
                multipliers,
                blocks,
                middle_blocks: 1 + usize::from(has("m1.c2.w".into())),
                attention: has("attn.o.w".into()),
                groups,
            }),
            [length, width] => NetworkConfig::Sequence(SequenceConfig {
                shape: [length, width],
                conditions: if has("c1.w".into()) { self.dim("c1.w", 1)? } else { 0 },
                base,
                multipliers,
                blocks,
                kernel: self.dim("in.w", 2)?,
                groups,
                prefix: prefix.map_or(Ok(0), str::parse).context("its edgegen.prefix")?,
            }),
            _ => bail!("makes samples of shape {shape:?}: pictures and sequences are distilled"),
        })
    }

    /// A weight as the trainer has it: the export folds patches into the first convolution and the scale of attention
    /// into its queries.
    fn weight(&self, network: &NetworkConfig, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).with_context(|| format!("has no weights {name}"))?;
        ensure!(tensor.data_type == DataType::Float as i32, "its weights {name} are not float32");
        let values: Vec<f32> =
            tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        ensure!(values.len() == shape.iter().product::<usize>(), "its weights {name} are not of shape {shape:?}");
        let NetworkConfig::Unet(config) = network else { return Ok(values) };
        Ok(match name {
            "in.w" => unfolded(&values, shape, config.patch),
            "attn.qkv.w" | "attn.qkv.b" => {
                let scale = ((shape[0] / 3) as f32).sqrt();
                let queries = values.len() / 3;
                values.iter().enumerate().map(|(i, v)| if i < queries { v * scale } else { *v }).collect()
            }
            _ => values,
        })
    }
}

/// A convolution `[out, C·p·p, k, k]` over patches from the one `[out, C, p·k, p·k]` over pixels that is exported.
fn unfolded(values: &[f32], shape: &[usize], p: usize) -> Vec<f32> {
    let (inputs, k) = (shape[1], shape[3]);
    let (channels, side) = (inputs / (p * p), p * k);
    let place = |i: usize| {
        let (o, channel, ky, kx) = (i / (inputs * k * k), i / (k * k) % inputs, i / k % k, i % k);
        let (c, y, x) = (channel / (p * p), channel / p % p, channel % p);
        ((o * channels + c) * side + ky * p + y) * side + kx * p + x
    };
    (0..values.len()).map(|i| values[place(i)]).collect()
}

#[cfg(test)]
mod tests;
