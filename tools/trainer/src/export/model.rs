//! A whole ONNX model: the network's graph, its inputs and outputs, and what it says of itself.

use super::graph::{GraphBuilder, value_info};
use super::layers::Writer;
use crate::checkpoint::Header;
use crate::network::{NetworkConfig, Tensors};
use crate::sequences::{CONDITION, SAMPLE};
use anyhow::{Context, Result};
use edgegen::config::{SchedulerConfig, Spacing};
use onnx::pb::{ModelProto, OperatorSetIdProto, StringStringEntryProto, tensor_proto::DataType};

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

/// The network of `header` with these parameters as an ONNX model: inputs `sample` `[N, C, H, W]` or `[N, T, D]` and
/// `timestep` `[N]` (`[N, T]` of a network of prefixes), float32, and `class_labels` `[N]`, int64, or `global_cond`
/// `[N, C]`, float32; output `prediction` of the sample's shape. The metadata follow edgegen's model contract.
///
/// # Errors
/// When a parameter is missing.
pub fn to_onnx(header: &Header, parameters: &Tensors, recommendation: &Recommendation) -> Result<ModelProto> {
    let network = &header.network;
    let dims: Vec<Option<usize>> = std::iter::once(None).chain(network.shape().iter().map(|d| Some(*d))).collect();
    let times: &[Option<usize>] = if network.prefix() > 0 { &dims[..2] } else { &[None] };
    let mut inputs = vec![value_info(SAMPLE, DataType::Float, &dims), value_info("timestep", DataType::Float, times)];
    let graph = GraphBuilder::default();
    let (graph, name) = match network {
        NetworkConfig::Unet(config) => {
            inputs.push(value_info("class_labels", DataType::Int64, &[None]));
            let mut writer = Writer { graph, config, parameters };
            writer.unet()?;
            (writer.graph, "unet")
        }
        NetworkConfig::Sequence(config) => {
            if config.conditions > 0 {
                inputs.push(value_info(CONDITION, DataType::Float, &[None, Some(config.conditions)]));
            }
            let mut writer = Writer { graph, config, parameters };
            writer.sequence()?;
            (writer.graph, "sequence")
        }
    };
    let outputs = vec![value_info("prediction", DataType::Float, &dims)];
    Ok(ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "edgegen-trainer".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph.finish(name, inputs, outputs)),
        metadata_props: metadata(header, recommendation)?,
        ..Default::default()
    })
}

/// The layers that an int8 form leaves in float: the first, the last, and the shortcuts of the blocks after the
/// last skip connection. They pass the sample on to the output, and at low noise levels 8 bits are too coarse for
/// it: of the shipped network's error from rounding all layers, more than half came from their inputs. They are
/// 3 % of its multiply-adds.
pub fn float_layers(network: &NetworkConfig) -> Vec<String> {
    let blocks = match network {
        NetworkConfig::Unet(config) => config.blocks,
        NetworkConfig::Sequence(config) => config.blocks,
    };
    let shortcuts = (0..blocks).map(|block| format!("u0.{block}.s"));
    ["in", "out"].map(String::from).into_iter().chain(shortcuts).collect()
}

/// The configuration as diffusers reads it too.
fn scheduler(trained: &SchedulerConfig) -> String {
    if trained.is_flow() {
        // nothing of a schedule of β, which is no part of the class
        let class = trained.class.class_name.as_deref();
        let mut config =
            serde_json::json!({"_class_name": class, "num_train_timesteps": trained.num_train_timesteps, "shift": 1.0});
        if !trained.tuned_timesteps.is_empty() {
            config["tuned_timesteps"] = serde_json::json!(trained.tuned_timesteps);
        }
        return config.to_string();
    }
    // what diffusers, which does not know every spacing, is to use
    let mut scheduler = SchedulerConfig { timestep_spacing: Spacing::Trailing, ..trained.clone() };
    scheduler.other.insert("_class_name".into(), "DDIMScheduler".into());
    scheduler.to_json()
}

fn metadata(header: &Header, recommendation: &Recommendation) -> Result<Vec<StringStringEntryProto>> {
    let known = serde_json::from_value::<Spacing>(serde_json::Value::String(recommendation.spacing.clone()));
    known.with_context(|| format!("unknown step spacing '{}'", recommendation.spacing))?;
    let mut entries = vec![
        ("edgegen.scheduler", scheduler(&header.scheduler)),
        ("edgegen.sampler", recommendation.sampler.clone()),
        ("edgegen.spacing", recommendation.spacing.clone()),
        ("edgegen.steps", recommendation.steps.to_string()),
        ("edgegen.role.sample", SAMPLE.into()),
        ("edgegen.role.time", "timestep".into()),
        ("edgegen.training", serde_json::to_string(&header.train)?),
        ("edgegen.trained_steps", header.step.to_string()),
    ];
    if let Some(config) = &header.distill {
        entries.push(("edgegen.distilled", serde_json::to_string(config)?));
    }
    match &header.network {
        NetworkConfig::Unet(config) => entries.extend([
            ("edgegen.classes", serde_json::to_string(&header.class_names)?),
            ("edgegen.null_class", config.classes.to_string()),
            ("edgegen.value_range", "[-1, 1]".into()),
            ("edgegen.guidance", recommendation.guidance.to_string()),
            ("edgegen.role.class", "class_labels".into()),
        ]),
        NetworkConfig::Sequence(config) => {
            if config.conditions > 0 {
                entries.push(("edgegen.role.condition", CONDITION.into()));
            }
            if config.prefix > 0 {
                entries.push(("edgegen.prefix", config.prefix.to_string()));
            }
        }
    }
    if let Some(normalization) = &header.normalization {
        entries.push(("edgegen.normalization", serde_json::to_string(normalization)?));
    }
    Ok(entries.into_iter().map(|(key, value)| StringStringEntryProto { key: key.into(), value }).collect())
}
