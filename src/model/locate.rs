//! Where a model's network and its schedule lie: a file, or a folder as diffusers and optimum lay it out.

use crate::config::SchedulerConfig;
use crate::lerobot::Control;
use crate::normalization::Normalization;
use crate::{Error, ErrorKind, Result};
use crate::{file, lerobot};
use serde_json::{Map, Value};
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
    let folder = folder_of(&file);
    let config = folder.join("config.json");
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|e| Error::new(ErrorKind::Model, format!("{}: {e}", config.display())))
    };
    let config = file::read_text_if_any(&config)?.map(read).transpose()?;
    Ok((file, config))
}

/// The schedule that lies near the network's file: `scheduler_config.json` beside it, or in `scheduler/` beside it
/// or beside its folder; or a LeRobot policy's `config.json` beside it.
///
/// # Errors
/// When there is one that cannot be read.
pub(super) fn scheduler_near(file: &Path) -> Result<Option<SchedulerConfig>> {
    let folder = folder_of(file);
    const NAME: &str = "scheduler_config.json";
    let places = [folder.join(NAME), folder.join("scheduler").join(NAME), folder.join("../scheduler").join(NAME)];
    for place in places {
        if let Some(text) = file::read_text_if_any(&place)? {
            return SchedulerConfig::from_json(&text).map(Some).map_err(|e| e.context(place.display()));
        }
    }
    let policy = folder.join("config.json");
    match file::read_text_if_any(&policy)? {
        Some(text) => lerobot::scheduler_config(&text).map_err(|e| e.context(policy.display())),
        None => Ok(None),
    }
}

/// The statistics of a LeRobot policy whose processors lie beside the network's file.
///
/// # Errors
/// When there are some that cannot be read.
pub(super) fn normalization_near(file: &Path) -> Result<Option<Normalization>> {
    lerobot::normalization(folder_of(file))
}

/// What the LeRobot policy's `config.json` beside the network's file says of its control loop.
///
/// # Errors
/// When it cannot be read.
pub(super) fn control_near(file: &Path) -> Result<Control> {
    let policy = folder_of(file).join("config.json");
    // diffusers and transformers have files of this name too
    let is_policy = |text: &String| serde_json::from_str::<Value>(text).is_ok_and(|value| value["type"].is_string());
    match file::read_text_if_any(&policy)?.filter(is_policy) {
        Some(text) => Control::from_json(&text).map_err(|e| e.context(policy.display())),
        None => Ok(Control::default()),
    }
}

/// The folder that a file lies in.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
