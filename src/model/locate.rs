//! Where a model's network and its schedule lie: a file, or a folder as diffusers and optimum lay it out.

use crate::config::SchedulerConfig;
use crate::file;
use crate::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The ONNX file that `path` is, or that the folder `path` holds: `unet/model.onnx`, `transformer/model.onnx` or
/// `model.onnx`, or the only .onnx file in one of these places.
///
/// # Errors
/// When the folder holds none, or several.
pub(super) fn network_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let model = |message: String| Error::new(ErrorKind::Model, message);
    for part in ["unet", "transformer", "."] {
        let folder = if part == "." { path.to_path_buf() } else { path.join(part) };
        let usual = folder.join("model.onnx");
        if usual.is_file() {
            return Ok(usual);
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        found.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
        found.sort();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.clone()),
            several => {
                let names: Vec<_> =
                    several.iter().filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect();
                return Err(model(format!("the folder holds several networks: name one of {}", names.join(", "))));
            }
        }
    }
    let exported = path.join("model_index.json").is_file() || path.join("config.json").is_file();
    let hint = if exported { ": the folder's PyTorch weights must be exported first (docs/models.md)" } else { "" };
    Err(model(format!(
        "the folder holds no ONNX network; it should be in unet/model.onnx, transformer/model.onnx or model.onnx{hint}"
    )))
}

/// The ONNX file of a decoder that `path` is, or that the folder holds, with the configuration beside it, if there is one.
///
/// # Errors
/// When there is one that cannot be read.
pub(super) fn decoder_file(path: &Path) -> Result<(PathBuf, Option<Map<String, Value>>)> {
    let file = if path.is_dir() { path.join("model.onnx") } else { path.to_path_buf() };
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let config = folder.join("config.json");
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|e| Error::new(ErrorKind::Model, format!("{}: {e}", config.display())))
    };
    let config = text(&config)?.map(read).transpose()?;
    Ok((file, config))
}

/// The schedule that lies near the network's file: `scheduler_config.json` beside it, or in `scheduler/` beside it
/// or beside its folder; or a LeRobot policy's `config.json` beside it.
///
/// # Errors
/// When there is one that cannot be read.
pub(super) fn scheduler_near(file: &Path) -> Result<Option<SchedulerConfig>> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    const NAME: &str = "scheduler_config.json";
    let places = [folder.join(NAME), folder.join("scheduler").join(NAME), folder.join("../scheduler").join(NAME)];
    for place in places {
        if let Some(text) = text(&place)? {
            return SchedulerConfig::from_json(&text).map(Some).map_err(|e| e.context(place.display()));
        }
    }
    let policy = folder.join("config.json");
    match text(&policy)?.and_then(|text| of_lerobot(&text)) {
        Some(text) => SchedulerConfig::from_json(&text).map(Some).map_err(|e| e.context(policy.display())),
        None => Ok(None),
    }
}

/// The text of a configuration, if there is one.
fn text(path: &Path) -> Result<Option<String>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match file::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(None),
        Err(e) => Err(Error::new(ErrorKind::Io, format!("{} cannot be read: {e}", path.display()))),
    }
}

/// The scheduler's part of the configuration of LeRobot's diffusion policy, as diffusers has it.
fn of_lerobot(text: &str) -> Option<String> {
    let policy: Map<String, Value> = serde_json::from_str(text).ok()?;
    let class = policy.get("noise_scheduler_type")?.as_str()?;
    const FIELDS: [&str; 7] = [
        "num_train_timesteps",
        "beta_schedule",
        "beta_start",
        "beta_end",
        "prediction_type",
        "clip_sample",
        "clip_sample_range",
    ];
    let mut config: Map<String, Value> =
        FIELDS.iter().filter_map(|f| Some((f.to_string(), policy.get(*f)?.clone()))).collect();
    config.insert("_class_name".into(), json!(format!("{class}Scheduler")));
    Some(Value::Object(config).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policys_schedule_is_its_schedulers() {
        let text = r#"{"type": "diffusion", "noise_scheduler_type": "DDIM", "num_train_timesteps": 100,
            "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02, "horizon": 16,
            "prediction_type": "epsilon", "clip_sample": true, "clip_sample_range": 1.0}"#;
        let config = SchedulerConfig::from_json(&of_lerobot(text).unwrap()).unwrap();
        assert_eq!((config.num_train_timesteps, config.class.class_name.as_deref()), (100, Some("DDIMScheduler")));
        assert_eq!(config.unknown_fields().count(), 0);
        assert_eq!(of_lerobot(r#"{"type": "act"}"#), None);
    }
}
