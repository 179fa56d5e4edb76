//! The units of a model's data, and the range that its network was trained in.
//!
//! Networks of actions and states are trained on numbers brought to a common range, dimension by dimension: from
//! (min, max) to [-1, 1], or to mean 0 and deviation 1. [`Normalization`] is the statistics of a data set as a file
//! has them; [`Normalizer`] is what they come to for the inputs of one model.

use crate::{Error, ErrorKind, Result, file};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The statistics of one array of a data set, one number of each for every dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Statistics {
    /// The least and the greatest value: these become -1 and 1.
    MinMax {
        /// The least.
        min: Vec<f64>,
        /// The greatest.
        max: Vec<f64>,
    },
    /// Mean and standard deviation: these become 0 and 1.
    MeanStd {
        /// The mean.
        mean: Vec<f64>,
        /// The standard deviation.
        std: Vec<f64>,
    },
}

/// Statistics by the name of what they are of, as JSON has them:
/// `{"sample": {"min": […], "max": […]}, "global_cond": {"mean": […], "std": […]}}`.
///
/// The names are those of a model's inputs. LeRobot's `stats.json` is read too: `action` stands for the sample, and
/// `observation.state`, followed by `observation.environment_state`, for the model's only condition. Of an entry that
/// has both kinds of statistics `"mode"` chooses, `min_max` (if it does not say) or `mean_std`.
///
/// Statistics of an image's channels, for a condition `[…, C, H, W]`, are `C` numbers and `"channels": true`, or nested
/// as `[[[r]], [[g]], [[b]]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Normalization {
    entries: BTreeMap<String, Entry>,
    /// Whether conditions are scaled by entries of their own names alone.
    #[serde(skip)]
    by_name: bool,
}

/// The statistics of one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub statistics: Statistics,
    /// Whether they are of the channels of images, `[…, C, H, W]`, rather than of the last dimension.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channels: bool,
}

impl Entry {
    fn scaling(&self, name: &str) -> Affine {
        let scaling = Affine::of([&self.statistics]);
        match is_lerobots(name) {
            true => scaling.with_constants_at(LEAST),
            false => scaling,
        }
    }
}

/// What a network of LeRobot's sees in a dimension whose least and greatest value are the same: the least of the range
/// that others are brought to, where other data sets' networks see its middle.
const LEAST: f32 = -1.0;

/// Whether this is the name of a feature of a LeRobot data set.
fn is_lerobots(name: &str) -> bool {
    name == "action" || name.starts_with("observation.")
}

impl Normalization {
    /// Reads a JSON file: see [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// When the file cannot be read, and as there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = file::read_text(path)
            .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display())))?;
        Self::from_json(&text).map_err(|e| e.context(path.display()))
    }

    /// Reads JSON. Entries that hold no statistics of either kind are skipped.
    ///
    /// # Errors
    /// When it is not an object of objects, or statistics are not lists of as many numbers, or not in order.
    pub fn from_json(text: &str) -> Result<Self> {
        let form = || {
            let like = r#"{"sample": {"min": [0], "max": [1]}, …} or the same with "mean" and "std""#;
            Error::invalid(format!("a normalization is JSON like {like}"))
        };
        let Ok(Value::Object(entries)) = serde_json::from_str(text) else { return Err(form()) };
        let mut all = BTreeMap::new();
        for (name, entry) in entries {
            let Value::Object(fields) = &entry else { return Err(form()) };
            let list = |key: &'static str| fields.get(key).map(|v| flatten(v).ok_or(key)).transpose();
            let read = || -> std::result::Result<Option<Statistics>, &'static str> {
                let mean_std = fields.get("mode").and_then(Value::as_str).is_some_and(|m| m == "mean_std");
                Ok(match (list("min")?, list("max")?, list("mean")?, list("std")?) {
                    (Some(min), Some(max), ..) if !mean_std => Some(Statistics::MinMax { min, max }),
                    (_, _, Some(mean), Some(std)) => Some(Statistics::MeanStd { mean, std }),
                    (Some(min), Some(max), ..) => Some(Statistics::MinMax { min, max }),
                    _ => None,
                })
            };
            let statistics = read()
                .map_err(|key| Error::invalid(format!("'{key}' of {name} should be a list of finite numbers")))?;
            let channels = fields
                .get("channels")
                .and_then(Value::as_bool)
                .unwrap_or_else(|| ["min", "mean"].iter().any(|key| fields.get(*key).is_some_and(is_of_channels)));
            if let Some(statistics) = statistics {
                statistics.check(&name)?;
                all.insert(name, Entry { statistics, channels });
            }
        }
        Ok(Normalization { entries: all, by_name: false })
    }

    /// The normalization of these statistics.
    ///
    /// # Errors
    /// When they are not lists of as many numbers, or not in order.
    pub fn new(entries: impl IntoIterator<Item = (String, Statistics)>) -> Result<Self> {
        let entries: BTreeMap<_, _> =
            entries.into_iter().map(|(name, statistics)| (name, Entry { statistics, channels: false })).collect();
        entries.iter().try_for_each(|(name, entry)| entry.statistics.check(name))?;
        Ok(Normalization { entries, by_name: false })
    }

    /// The normalization of a LeRobot policy's features. If it sees images, a network that takes no feature by its name takes
    /// what an encoder made of them, which nothing here is of.
    pub(crate) fn of_features(entries: BTreeMap<String, Entry>, sees_images: bool) -> Result<Self> {
        entries.iter().try_for_each(|(name, entry)| entry.statistics.check(name))?;
        Ok(Normalization { entries, by_name: sees_images })
    }

    /// The statistics of this name.
    pub fn get(&self, name: &str) -> Option<&Statistics> {
        self.entries.get(name).map(|entry| &entry.statistics)
    }

    /// What this comes to for a model whose input `sample` takes samples of `shape`, and whose `conditions` have
    /// these names and shapes.
    ///
    /// # Errors
    /// When a length does not fit, or nothing here is of this model.
    pub fn normalizer(&self, sample: &str, shape: &[usize], conditions: &[(&str, &[usize])]) -> Result<Normalizer> {
        let of_sample =
            [sample, "sample", "action"].into_iter().find_map(|n| Some((n, self.entries.get(n)?.scaling(n))));
        if let Some((name, scaling)) = &of_sample {
            let (len, last) = (scaling.len(), shape.last().copied().unwrap_or(1));
            if len != last && len != shape.iter().product::<usize>() {
                return Err(Error::invalid(format!(
                    "the normalization of {name} has {len} dimensions, but the model's samples have {last} (shape {shape:?})"
                )));
            }
        }
        let mut found = BTreeMap::new();
        for &(name, shape) in conditions {
            let scaling = match self.entries.get(name) {
                Some(entry) if entry.channels => entry.scaling(name).of_channels(name, shape)?,
                Some(entry) => entry.scaling(name).repeated(name, name, shape)?,
                None if conditions.len() == 1 && !self.by_name => match self.states() {
                    Some(states) => states.repeated("observation.state", name, shape)?,
                    None => continue,
                },
                None => continue,
            };
            found.insert(name.to_string(), scaling);
        }
        if of_sample.is_none() && found.is_empty() {
            let here: Vec<&str> = self.entries.keys().map(String::as_str).collect();
            return Err(Error::invalid(format!(
                "the normalization is of none of the model's inputs: it has {}, the model {}",
                if here.is_empty() { "nothing".into() } else { here.join(", ") },
                std::iter::once(sample).chain(conditions.iter().map(|c| c.0)).collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(Normalizer { sample: of_sample.map(|s| s.1), conditions: found })
    }

    /// The scaling of a LeRobot data set's states, one after the other, as networks take them that see nothing else.
    fn states(&self) -> Option<Affine> {
        let states = ["observation.state", "observation.environment_state"];
        let states: Vec<&Statistics> = states.iter().filter_map(|name| self.get(name)).collect();
        (!states.is_empty()).then(|| Affine::of(states).with_constants_at(LEAST))
    }
}

/// Whether these nested lists are numbers of an image's channels: `[[[r]], [[g]], [[b]]]`.
fn is_of_channels(value: &Value) -> bool {
    let one = |value: &Value| value.as_array().filter(|all| all.len() == 1).map(|all| all[0].clone());
    let is_channel = |channel: &Value| one(channel).and_then(|row| one(&row)).is_some_and(|v| v.is_number());
    value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is_channel))
}

/// Numbers in lists, which may be nested.
fn flatten(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Number(n) => Some(vec![n.as_f64().filter(|v| v.is_finite())?]),
        Value::Array(all) => Some(all.iter().map(flatten).collect::<Option<Vec<_>>>()?.concat()),
        _ => None,
    }
}

impl Statistics {
    /// The least and the greatest of each column of `rows`, which have `width` numbers each.
    ///
    /// # Panics
    /// When there is no row.
    pub fn min_max(rows: &[f32], width: usize) -> Self {
        let column = |i: usize| rows.iter().skip(i).step_by(width).map(|v| f64::from(*v));
        let extreme = |pick: fn(f64, f64) -> f64| {
            (0..width).map(|i| column(i).reduce(pick).expect("a column holds numbers")).collect()
        };
        Statistics::MinMax { min: extreme(f64::min), max: extreme(f64::max) }
    }

    /// Mean and standard deviation of each column of `rows`, which have `width` numbers each.
    pub fn mean_std(rows: &[f32], width: usize) -> Self {
        let n = (rows.len() / width) as f64;
        let column = |i: usize| rows.iter().skip(i).step_by(width).map(|v| f64::from(*v));
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / n).collect();
        let std = (0..width).map(|i| (column(i).map(|v| (v - mean[i]).powi(2)).sum::<f64>() / n).sqrt()).collect();
        Statistics::MeanStd { mean, std }
    }

    fn lists(&self) -> [(&'static str, &[f64]); 2] {
        match self {
            Statistics::MinMax { min, max } => [("min", min), ("max", max)],
            Statistics::MeanStd { mean, std } => [("mean", mean), ("std", std)],
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let [(a, left), (b, right)] = self.lists();
        if left.len() != right.len() {
            let (left, right) = (left.len(), right.len());
            return Err(Error::invalid(format!("{a} of {name} has {left} numbers, but {b} has {right}")));
        }
        let in_order = match self {
            Statistics::MinMax { min, max } => min.iter().zip(max).all(|(a, b)| a <= b),
            Statistics::MeanStd { std, .. } => std.iter().all(|s| *s >= 0.0),
        };
        match in_order {
            true => Ok(()),
            false => Err(Error::invalid(format!("{name}: a max is below its min, or a std is negative"))),
        }
    }
}

/// `data = offset + scale · network`, a pair for each dimension. A dimension that never varied has the scale 0: the
/// network sees one value for it, 0 unless it was trained with another, and the data is its one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    scale: Vec<f32>,
    offset: Vec<f32>,
    /// What the network sees of a dimension that never varied.
    constant: f32,
    /// How many neighbouring numbers are of one dimension: 1, or an image's pixels.
    each: usize,
}

impl Affine {
    /// The scaling of these statistics, one after the other.
    pub fn of<'a>(statistics: impl IntoIterator<Item = &'a Statistics>) -> Self {
        let mut all = Affine { scale: Vec::new(), offset: Vec::new(), constant: 0.0, each: 1 };
        for statistics in statistics {
            let [(_, left), (_, right)] = statistics.lists();
            for (a, b) in left.iter().zip(right) {
                let (scale, offset) = match statistics {
                    Statistics::MinMax { .. } => ((b - a) / 2.0, (a + b) / 2.0),
                    Statistics::MeanStd { .. } => (*b, *a),
                };
                all.scale.push(scale as f32);
                all.offset.push(offset as f32);
            }
        }
        all
    }

    fn with_constants_at(self, constant: f32) -> Self {
        Affine { constant, ..self }
    }

    /// This for each pixel of the channels of images of a condition's shape, `[…, C, H, W]`.
    fn of_channels(self, name: &str, shape: &[usize]) -> Result<Self> {
        match shape {
            [.., channels, height, width] if *channels == self.len() => Ok(Affine { each: height * width, ..self }),
            _ => Err(Error::invalid(format!(
                "the normalization of {name} is of {} channels, but the model's condition has the shape {shape:?}, which should end in [{}, height, width]",
                self.len(),
                self.len()
            ))),
        }
    }

    /// This, if it fits a condition of that shape once or several times: an observation of several moments has them one
    /// after the other.
    fn repeated(self, entry: &str, name: &str, shape: &[usize]) -> Result<Self> {
        let len: usize = shape.iter().product();
        if self.len() == 0 || !len.is_multiple_of(self.len()) {
            return Err(Error::invalid(format!(
                "the normalization of {entry} has {} dimensions, but the model's condition {name} has {len} numbers: give as many, or one for each of what it repeats",
                self.len()
            )));
        }
        Ok(self)
    }

    /// The number of dimensions.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.scale.len()
    }

    /// From the data's units to the network's.
    pub fn normalize(&self, values: &mut [f32]) {
        let constant = self.constant;
        self.each(values, |v, scale, offset| if scale == 0.0 { constant } else { (v - offset) / scale });
    }

    /// From the network's units to the data's.
    pub fn unnormalize(&self, values: &mut [f32]) {
        self.each(values, |v, scale, offset| offset + scale * v);
    }

    fn each(&self, values: &mut [f32], f: impl Fn(f32, f32, f32) -> f32) {
        let dimensions = self.scale.iter().zip(&self.offset).cycle();
        for (dimension, (scale, offset)) in values.chunks_mut(self.each.max(1)).zip(dimensions) {
            dimension.iter_mut().for_each(|v| *v = f(*v, *scale, *offset));
        }
    }
}

/// How the numbers of a model's inputs are scaled. The default leaves all as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalizer {
    /// The sample's scaling.
    pub sample: Option<Affine>,
    /// Those of conditions, by their names.
    pub conditions: BTreeMap<String, Affine>,
}

impl Normalizer {
    /// A sample from the data's units to the network's.
    pub fn normalize(&self, sample: &mut [f32]) {
        if let Some(scaling) = &self.sample {
            scaling.normalize(sample);
        }
    }

    /// A sample from the network's units to the data's.
    pub fn unnormalize(&self, sample: &mut [f32]) {
        if let Some(scaling) = &self.sample {
            scaling.unnormalize(sample);
        }
    }

    /// Named conditions from the data's units to the network's.
    pub fn normalize_conditions(&self, named: &mut BTreeMap<String, Vec<f32>>) {
        for (name, scaling) in &self.conditions {
            if let Some(values) = named.get_mut(name) {
                scaling.normalize(values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Normalization {
        Normalization::from_json(text).unwrap()
    }

    #[test]
    fn ranges_become_one_and_deviations_too() {
        let n = read(r#"{"x": {"min": [0, -4, 7], "max": [10, 4, 7]}, "c": {"mean": [1, 2], "std": [0.5, 4]}}"#);
        let s = n.normalizer("x", &[2, 3], &[("c", &[4])]).unwrap();
        let mut x = [0.0, 4.0, 7.0, 7.5, 0.0, 7.0];
        s.normalize(&mut x);
        assert_eq!(x, [-1.0, 1.0, 0.0, 0.5, 0.0, 0.0]);
        s.unnormalize(&mut x);
        assert_eq!(x, [0.0, 4.0, 7.0, 7.5, 0.0, 7.0]);
        // two moments, one after the other
        let mut named = [("c".to_string(), vec![1.5, 6.0, 1.0, -2.0]), ("d".to_string(), vec![3.0])].into();
        s.normalize_conditions(&mut named);
        assert_eq!((&named["c"][..], &named["d"][..]), (&[1.0, 1.0, 0.0, -1.0][..], &[3.0][..]));
    }

    #[test]
    fn the_statistics_of_a_lerobot_data_set_are_read() {
        let both = r#"{"min": [0], "max": [2], "mean": [1.5], "std": [0.5], "count": [9], "q01": [0.1]}"#;
        let text = format!(
            r#"{{"action": {both}, "observation.state": {both}, "observation.environment_state": {both},
            "observation.image": {{"mean": [[[0.5]]], "std": [[[0.2]]], "min": [[[0]]], "max": [[[1]]]}}, "names": {{}}}}"#
        );
        let s = read(&text).normalizer("noisy", &[8, 1], &[("global_cond", &[4])]).unwrap();
        assert_eq!((s.sample.unwrap().offset, s.conditions["global_cond"].len()), (vec![1.0], 2));
        let text = text.replace(r#"{"min": [0],"#, r#"{"mode": "mean_std", "min": [0],"#);
        assert_eq!(read(&text).normalizer("noisy", &[8, 1], &[]).unwrap().sample.unwrap().offset, [1.5]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let normalizer = |text: &str| read(text).normalizer("x", &[4, 2], &[("c", &[4])]).unwrap_err().to_string();
        let error = normalizer(r#"{"x": {"min": [0, 0, 0], "max": [1, 1, 1]}}"#);
        assert_eq!(error, "the normalization of x has 3 dimensions, but the model's samples have 2 (shape [4, 2])");
        let error = normalizer(r#"{"c": {"min": [0, 0, 0], "max": [1, 1, 1]}}"#);
        assert!(error.contains("c has 3 dimensions, but the model's condition c has 4 numbers"), "{error}");
        let error = normalizer(r#"{"y": {"min": [0, 0], "max": [1, 1]}}"#);
        assert!(error.contains("it has y, the model x, c"), "{error}");
        for (text, words) in [
            ("[1]", "JSON like"),
            ("{\"x\": 3}", "JSON like"),
            (r#"{"x": {"min": [0], "max": [1, 2]}}"#, "min of x has 1 numbers, but max has 2"),
            (r#"{"x": {"min": [0], "max": ["a"]}}"#, "'max' of x should be a list"),
            (r#"{"x": {"min": [2], "max": [1]}}"#, "below its min"),
        ] {
            let error = Normalization::from_json(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn statistics_are_those_of_the_columns() {
        let rows = [1.0, 10.0, 3.0, 10.0, 5.0, 40.0];
        let want = Statistics::MinMax { min: vec![1.0, 10.0], max: vec![5.0, 40.0] };
        assert_eq!(Statistics::min_max(&rows, 2), want);
        let want = Statistics::MeanStd { mean: vec![3.0, 20.0], std: vec![(8f64 / 3.0).sqrt(), 200f64.sqrt()] };
        assert_eq!(Statistics::mean_std(&rows, 2), want);
    }
}
