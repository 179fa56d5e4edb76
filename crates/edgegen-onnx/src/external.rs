//! Weights that lie in files of their own, beside the ONNX file (external data).
//!
//! A file names them by a path relative to its folder. What leads out of the folder, by `..`, as an absolute path or
//! through a link, is refused: a model must not be able to read the rest of the disk.

use crate::Result;
use crate::budget::Budget;
use crate::pb::tensor_proto::{DataLocation, DataType};
use crate::pb::{GraphProto, TensorProto};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path};

/// Reads every stored tensor that lies elsewhere into the graph. `folder` is the model's; `None` for a model that
/// was given as bytes, which has none. What is read is taken from the budget.
///
/// # Errors
/// When a file is missing, too short, outside the folder, or no regular file.
pub fn load_external_data(graph: &mut GraphProto, folder: Option<&Path>, budget: &Budget) -> Result<()> {
    load_graph(graph, &mut Files { folder, budget, read: HashMap::new() })
}

/// The files beside a model.
struct Files<'a> {
    folder: Option<&'a Path>,
    budget: &'a Budget,
    /// Those that were read.
    read: HashMap<String, Bytes>,
}

fn load_graph(graph: &mut GraphProto, files: &mut Files) -> Result<()> {
    for tensor in &mut graph.initializer {
        load_tensor(tensor, files)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
        if let Some(tensor) = &mut attribute.t {
            load_tensor(tensor, files)?;
        }
        if let Some(inner) = &mut attribute.g {
            load_graph(inner, files)?;
        }
    }
    Ok(())
}

fn load_tensor(tensor: &mut TensorProto, files: &mut Files) -> Result<()> {
    if tensor.data_location != Some(DataLocation::External as i32) {
        return Ok(());
    }
    let name = tensor.name.clone();
    let error = |what: String| format!("the weights {name} {what}");
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| -> Result<Option<usize>> {
        let Some(text) = entry(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| error(format!("say that their {key} is '{text}', which is no number")))
    };
    let location = entry("location").ok_or_else(|| error("lie in a file that is not named".into()))?.to_string();
    let folder = files.folder.ok_or_else(|| {
        error(format!("lie in a file of their own, {location}: open the model by its path, with that file beside it"))
    })?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if !files.read.contains_key(&location) {
        let bytes = read_inside(folder, &location, files.budget).map_err(error)?;
        files.read.insert(location.clone(), bytes.into());
    }
    let bytes = &files.read[&location];
    let end = length.map_or(Some(bytes.len()), |l| offset.checked_add(l));
    let Some(end) = end.filter(|end| (offset..=bytes.len()).contains(end)) else {
        let (had, length) = (bytes.len(), length.unwrap_or(0));
        return Err(error(format!("lie at bytes {offset} to {offset}+{length} of {location}, which has only {had}")));
    };
    let data = bytes.slice(offset..end);
    if let Some(expected) = byte_len(tensor).filter(|n| *n != data.len()) {
        return Err(error(format!("take {expected} bytes, but {location} has {} for them", data.len())));
    }
    tensor.raw_data = data;
    tensor.data_location = None;
    tensor.external_data.clear();
    Ok(())
}

/// The file `location` of `folder`, which must lie inside it.
fn read_inside(folder: &Path, location: &str, budget: &Budget) -> Result<Vec<u8>> {
    let outside = || format!("lie in '{location}', which is not in the model's folder: such a file is not read");
    let path = Path::new(location);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !plain {
        return Err(outside());
    }
    let missing = |e: std::io::Error| {
        format!("lie in {location} beside the model, which cannot be read ({e}): put it there, under this name")
    };
    let root = folder.canonicalize().map_err(missing)?;
    let file = root.join(path).canonicalize().map_err(missing)?;
    if !file.starts_with(&root) {
        return Err(outside());
    }
    let about = file.metadata().map_err(missing)?;
    if !about.is_file() {
        // a pipe would be waited for
        return Err(format!("lie in {location}, which is no regular file"));
    }
    let bytes = usize::try_from(about.len()).unwrap_or(usize::MAX);
    budget.take_file(bytes).map_err(|e| format!("lie in {location}, a file of {bytes} bytes: {e}"))?;
    std::fs::read(file).map_err(missing)
}

/// How many bytes a tensor of this shape and type takes, where that is known.
fn byte_len(tensor: &TensorProto) -> Option<usize> {
    let size = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 2,
        DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
        _ => return None,
    };
    tensor.dims.iter().try_fold(size, |n: usize, d| n.checked_mul(usize::try_from(*d).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::StringStringEntryProto;

    fn graph(entries: &[(&str, &str)]) -> GraphProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).into(), value: (*value).into() };
        let tensor = TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: DataType::Float as i32,
            data_location: Some(DataLocation::External as i32),
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        };
        GraphProto { initializer: vec![tensor], ..Default::default() }
    }

    #[test]
    fn a_part_of_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w.bin"), (0..16).collect::<Vec<u8>>()).unwrap();
        let mut g = graph(&[("location", "w.bin"), ("offset", "4"), ("length", "8")]);
        load_external_data(&mut g, Some(folder.path()), &Budget::of_files()).unwrap();
        assert_eq!(g.initializer[0].raw_data, (4..12).collect::<Vec<u8>>());
        assert_eq!(g.initializer[0].data_location, None);
    }

    #[test]
    fn what_is_missing_or_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(folder.path().join("secret"), [0; 8]).unwrap();
        std::fs::write(model.join("short"), [0; 6]).unwrap();
        std::fs::create_dir(model.join("folder")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("secret"), model.join("link")).unwrap();
        let absolute = folder.path().join("secret");
        let cases = [
            (vec![("location", "../secret")], "not in the model's folder"),
            (vec![("location", absolute.to_str().unwrap())], "not in the model's folder"),
            (vec![("location", "a/../../secret")], "not in the model's folder"),
            #[cfg(unix)]
            (vec![("location", "link")], "not in the model's folder"),
            (vec![("location", "")], "not in the model's folder"),
            (vec![("location", "none.bin")], "which cannot be read"),
            (vec![("location", "folder")], "no regular file"),
            (vec![], "is not named"),
            (vec![("location", "short")], "take 8 bytes, but short has 6"),
            (vec![("location", "short"), ("offset", "4"), ("length", "8")], "which has only 6"),
            (vec![("location", "short"), ("offset", "-1")], "offset is '-1', which is no number"),
            (vec![("location", "short"), ("offset", "18446744073709551615"), ("length", "8")], "which has only 6"),
        ];
        for (entries, words) in cases {
            let error = load_external_data(&mut graph(&entries), Some(&model), &Budget::of_files()).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{error:?} does not say {words:?}");
        }
        let entries = [("location", "short"), ("offset", "0")];
        let error = load_external_data(&mut graph(&entries), Some(&model), &Budget::new(5)).unwrap_err();
        assert!(error.contains("takes more than"), "{error}");
        let error = load_external_data(&mut graph(&[("location", "w.bin")]), None, &Budget::of_files()).unwrap_err();
        assert!(error.contains("open the model by its path"), "{error}");
    }
}
