//! The statistics by which a LeRobot policy's processors scale what it sees and does.
//!
//! Beside a policy's weights lie `policy_preprocessor.json` and `policy_postprocessor.json`. Each is a list of steps; one
//! of the first scales the features that the policy sees, one of the second the actions, by statistics in a safetensors
//! file of its own. A step that changes numbers in a way that is not known here is refused by its name.

use crate::normalization::{Entry, Normalization, Statistics};
use crate::{Error, ErrorKind, Result, file};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The statistics of the policy in this folder; `None` if it has no processors.
///
/// # Errors
/// When one cannot be read, or does what is not supported.
pub(crate) fn normalization(folder: &Path) -> Result<Option<Normalization>> {
    let (mut entries, mut sees_images, mut any) = (BTreeMap::new(), false, false);
    // what the second has of the actions holds: the first has them for training
    for name in ["policy_preprocessor.json", "policy_postprocessor.json"] {
        let path = folder.join(name);
        let Some(text) = file::read_text_if_any(&path)? else { continue };
        any = true;
        let mut read = || -> Result<()> {
            for step in Processor::of(&text)?.steps {
                if let Some(scaling) = step.scaling()? {
                    sees_images |= scaling.features.values().any(|feature| feature.kind == "VISUAL");
                    entries.extend(step.entries(&scaling, folder)?);
                }
            }
            Ok(())
        };
        read().map_err(|e| e.context(path.display()))?;
    }
    match any {
        true => Normalization::of_features(entries, sees_images).map(Some).map_err(|e| e.context(folder.display())),
        false => Ok(None),
    }
}

#[derive(Deserialize)]
struct Processor {
    steps: Vec<Step>,
}

impl Processor {
    fn of(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("not a processor of LeRobot's: {e}")))
    }
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    registry_name: Option<String>,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    config: serde_json::Value,
    #[serde(default)]
    state_file: Option<String>,
}

/// What a step says that scales.
#[derive(Deserialize)]
struct Scaling {
    #[serde(default)]
    eps: f64,
    features: BTreeMap<String, Feature>,
    norm_map: BTreeMap<String, String>,
    #[serde(default)]
    normalize_observation_keys: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Feature {
    #[serde(rename = "type")]
    kind: String,
}

impl Step {
    /// What it says, if it is a step that scales; `None` if it changes no number.
    fn scaling(&self) -> Result<Option<Scaling>> {
        let name = self.registry_name.as_deref().or(self.class.as_deref()).unwrap_or("");
        match name {
            "normalizer_processor" | "unnormalizer_processor" => serde_json::from_value(self.config.clone())
                .map(Some)
                .map_err(|e| Error::invalid(format!("the step {name} cannot be read: {e}"))),
            // the network's inputs have the names after it
            "rename_observations_processor" => Ok(None),
            // a batch of one is the network's own business; text comes to the network as tokens
            "to_batch_processor" | "tokenizer_processor" => Ok(None),
            "device_processor" => match self.config.get("float_dtype").and_then(|kind| kind.as_str()) {
                None | Some("float32") => Ok(None),
                Some(kind) => {
                    Err(Error::invalid(format!("the step {name} rounds to {kind}; only float32 is supported")))
                }
            },
            other => Err(Error::invalid(format!(
                "the step '{other}' changes what the policy sees or does and is not supported; put what it does into the exported network, and take it out of the list"
            ))),
        }
    }

    /// The statistics of the features that it scales.
    fn entries(&self, scaling: &Scaling, folder: &Path) -> Result<BTreeMap<String, Entry>> {
        let Some(name) = &self.state_file else { return Ok(BTreeMap::new()) };
        if Path::new(name).components().count() != 1 || Path::new(name).file_name().is_none() {
            return Err(Error::invalid(format!("the state file '{name}' is not in the policy's folder")));
        }
        let path = folder.join(name);
        let bytes = file::read(&path, u64::MAX)
            .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display())))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::invalid(format!("{} is not a safetensors file: {e}", path.display())))?;
        scaling.entries(&tensors).map_err(|e| e.context(path.display()))
    }
}

impl Scaling {
    fn entries(&self, tensors: &SafeTensors) -> Result<BTreeMap<String, Entry>> {
        let mut entries = BTreeMap::new();
        for (name, feature) in &self.features {
            let mode = self.norm_map.get(&feature.kind).map_or("IDENTITY", String::as_str);
            let is_action = feature.kind == "ACTION";
            let among = self.normalize_observation_keys.as_ref().is_none_or(|keys| keys.contains(name));
            // as there, a feature without statistics is left as it is
            let has_any =
                tensors.names().iter().any(|n| n.rsplit_once('.').is_some_and(|(feature, _)| feature == name));
            if mode == "IDENTITY" || !has_any || !(is_action || among) {
                continue;
            }
            let column = |of: &str| column(tensors, &format!("{name}.{of}"));
            let pair = |a: &str, b: &str| -> Result<_> { Ok((column(a)?, column(b)?)) };
            let ((left, right), is_range) = match mode {
                "MIN_MAX" => (pair("min", "max")?, true),
                "QUANTILES" => (pair("q01", "q99")?, true),
                "QUANTILE10" => (pair("q10", "q90")?, true),
                "MEAN_STD" => (pair("mean", "std")?, false),
                other => {
                    return Err(Error::invalid(format!("the normalization mode {other} of {name} is not supported")));
                }
            };
            let statistics = match is_range {
                true => Statistics::MinMax { min: left.values, max: right.values },
                // what is seen is divided by a little more than the deviation, as there; actions are multiplied by just that
                false => {
                    let more = if is_action { 0.0 } else { self.eps };
                    let std = right.values.iter().map(|std| if *std == 0.0 { 0.0 } else { std + more }).collect();
                    Statistics::MeanStd { mean: left.values, std }
                }
            };
            entries.insert(name.clone(), Entry { statistics, channels: left.of_channels });
        }
        Ok(entries)
    }
}

/// A tensor of statistics, and whether it is of an image's channels, `[C, 1, 1]`.
struct Column {
    values: Vec<f64>,
    of_channels: bool,
}

fn column(tensors: &SafeTensors, name: &str) -> Result<Column> {
    let tensor = tensors.tensor(name).map_err(|_| Error::invalid(format!("{name} is missing")))?;
    let bytes = tensor.data();
    let values: Vec<f64> = match tensor.dtype() {
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")).into()).collect()
        }
        Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect(),
        other => return Err(Error::invalid(format!("{name} is of {other:?}; F32 and F64 can be read"))),
    };
    if values.is_empty() || !values.iter().all(|v| v.is_finite()) {
        return Err(Error::invalid(format!("{name} should hold finite numbers")));
    }
    let of_channels = match tensor.shape() {
        [_] | [] => false,
        [_, 1, 1] => true,
        shape => {
            return Err(Error::invalid(format!(
                "{name} has the shape {shape:?}; a number for each dimension, or [C, 1, 1] for an image's channels, can be read"
            )));
        }
    };
    Ok(Column { values, of_channels })
}
