//! Checkpoints: everything that training goes on from, in one safetensors file.
//!
//! Tensors are named `model.NAME` (the weights), `ema.NAME` (their exponential moving average: what is
//! sampled and exported), `adam.mean.NAME` and `adam.square.NAME` (the optimiser), with NAME as in
//! [`NetworkConfig`]; of a student also `teacher.NAME`, and its heads' `critic.model.NAME`, `critic.mean.NAME` and
//! `critic.square.NAME`. The file's metadata holds one entry, `edgegen`: the
//! [`Header`] as JSON. Random numbers need no state: each step's come from (seed, step).
//!
//! A checkpoint is written to a temporary file in the same folder, synced and renamed, so that whatever
//! happens, the file of that name is whole: the old one or the new one.

use crate::distill::{self, DistillConfig};
use crate::network::{CriticConfig, NetworkConfig, Tensors};
use crate::train::TrainConfig;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use edgegen::config::SchedulerConfig;
use edgegen::model::Normalization;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// What a checkpoint holds beside tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Which network it is, and its sizes.
    #[serde(flatten)]
    pub network: NetworkConfig,
    /// The noise schedule and what the network predicts.
    pub scheduler: SchedulerConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// The classes' names.
    pub class_names: Vec<String>,
    /// The statistics that sequences and conditions are scaled by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// What it is distilled for, if it is a student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillConfig>,
    /// Steps taken so far.
    pub step: u64,
    /// Seconds spent on them.
    pub seconds: f64,
}

/// A checkpoint in memory.
pub struct Checkpoint {
    /// What it holds beside tensors.
    pub header: Header,
    /// The weights.
    pub model: Tensors,
    /// Their exponential moving average.
    pub ema: Tensors,
    /// Running means of the gradients.
    pub adam_mean: Tensors,
    /// Running means of the squared gradients.
    pub adam_square: Tensors,
    /// What a distillation goes on from; empty without one.
    pub distillation: distill::State,
}

const HEADER: &str = "edgegen";

impl Checkpoint {
    /// Writes the checkpoint to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written; what was there before is then still there.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut named: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (prefix, tensors) in self.groups() {
            for (name, tensor) in tensors {
                let values = tensor.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                named.push((format!("{prefix}.{name}"), tensor.dims().to_vec(), bytes));
            }
        }
        let views = named
            .iter()
            .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([(HEADER.to_string(), serde_json::to_string(&self.header)?)]);
        write_atomically(path, &safetensors::serialize(views, Some(metadata))?)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When the file cannot be read or is not a whole checkpoint.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the checkpoint {}", path.display()))?;
        let not_one = || format!("{} is not a checkpoint of this trainer, or is damaged", path.display());
        let (_, metadata) = SafeTensors::read_metadata(&bytes).with_context(not_one)?;
        let json = metadata.metadata().as_ref().and_then(|m| m.get(HEADER)).with_context(not_one)?;
        let header: Header = serde_json::from_str(json).with_context(not_one)?;
        let file = SafeTensors::deserialize(&bytes).with_context(not_one)?;
        let mut groups: HashMap<&str, Tensors> = HashMap::new();
        for (name, view) in file.tensors() {
            ensure!(view.dtype() == Dtype::F32, not_one());
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
            let tensor = Tensor::from_vec(values, view.shape(), device)?;
            let Some((group, rest)) = GROUPS.iter().find_map(|g| Some((*g, name.strip_prefix(g)?.strip_prefix('.')?)))
            else {
                bail!("{}: unknown tensor {name}", not_one());
            };
            groups.entry(group).or_default().insert(rest.to_string(), tensor);
        }
        header.network.check().with_context(not_one)?;
        let mut take = |group: &str, shapes: &[(String, Vec<usize>)]| -> Result<Tensors> {
            let tensors = groups.remove(group).with_context(not_one)?;
            for (name, shape) in shapes {
                let fits = tensors.get(name).is_some_and(|t| t.dims() == shape);
                ensure!(fits, "{}: {group}.{name} is missing or not of shape {shape:?}", not_one());
            }
            Ok(tensors)
        };
        let network: Vec<_> = header.network.shapes().collect();
        let [model, ema, adam_mean, adam_square] = [
            take(GROUPS[0], &network)?,
            take(GROUPS[1], &network)?,
            take(GROUPS[2], &network)?,
            take(GROUPS[3], &network)?,
        ];
        let mut distillation = distill::State::default();
        if let Some(config) = header.distill {
            config.check().with_context(not_one)?;
            distillation.teacher = take(GROUPS[4], &network)?;
            if config.adversarial > 0.0 {
                let heads: Vec<_> = CriticConfig::of(&header.network).shapes().collect();
                distillation.critic = take(GROUPS[5], &heads)?;
                distillation.critic_mean = take(GROUPS[6], &heads)?;
                distillation.critic_square = take(GROUPS[7], &heads)?;
            }
        }
        Ok(Checkpoint { header, model, ema, adam_mean, adam_square, distillation })
    }

    fn groups(&self) -> [(&'static str, &Tensors); 8] {
        let distill::State { teacher, critic, critic_mean, critic_square } = &self.distillation;
        let [model, ema, mean, square] = [&self.model, &self.ema, &self.adam_mean, &self.adam_square];
        let tensors = [model, ema, mean, square, teacher, critic, critic_mean, critic_square];
        std::array::from_fn(|i| (GROUPS[i], tensors[i]))
    }
}

const GROUPS: [&str; 8] =
    ["model", "ema", "adam.mean", "adam.square", "teacher", "critic.model", "critic.mean", "critic.square"];

/// Writes a file whole or not at all.
///
/// # Errors
/// When it cannot be written; what was there before is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // always the same name, so that what a killed process leaves is overwritten by the next
    let mut partial = path.as_os_str().to_owned();
    partial.push(".tmp");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        // the rename itself must reach the disk too
        std::fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
