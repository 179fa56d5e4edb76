//! Training data of sequences: actions and what was observed before them, as npy arrays.
//!
//! A folder holds `actions.npy` and, unless nothing was observed, `obs.npy`:
//!
//! - windows, ready cut: actions `[N, T, D]`, observations `[N, C]`; or
//! - demonstrations: actions `[M, D]` and observations `[M, C]` of every moment, one demonstration after the other, and
//!   `episode_ends.npy` `[E]`, the index behind each one's last moment, as real-stanford/diffusion_policy has them.
//!   They are cut here: each moment begins a window of the next `horizon` actions, the last one repeated past the end,
//!   under the observations of the last `moments` moments, the first one repeated before the beginning.

use crate::data::{Condition, Samples};
use anyhow::{Context, Result, bail, ensure};
use edgegen::model::{Normalization, Normalizer, Statistics};
use edgegen::output::read_npy;
use std::path::Path;

/// What the columns' statistics are, by which they are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    /// Least and greatest become -1 and 1.
    MinMax,
    /// Mean and standard deviation become 0 and 1.
    MeanStd,
}

/// Sequences in the network's range, and what each is conditioned on.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequences {
    actions: Vec<f32>,
    shape: [usize; 2],
    observations: Vec<f32>,
    conditions: usize,
    /// What they were scaled by.
    pub normalization: Normalization,
}

/// How demonstrations are cut into windows.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Actions of a window.
    pub horizon: usize,
    /// Moments that a window is conditioned on.
    pub moments: usize,
}

/// The names that an exported network's inputs have.
pub const SAMPLE: &str = "sample";
/// The condition's.
pub const CONDITION: &str = "global_cond";

const ACTIONS: &str = "actions.npy";

impl Sequences {
    /// Whether a folder holds sequences.
    pub fn is_one(folder: &Path) -> bool {
        folder.join(ACTIONS).exists()
    }

    /// Reads the data in `folder`, and scales it by its own statistics.
    ///
    /// # Errors
    /// When a file cannot be read, or the arrays do not fit together.
    pub fn open(folder: &Path, windows: Windows, scale: Scale) -> Result<Self> {
        ensure!(windows.horizon > 0 && windows.moments > 0, "--horizon and --obs-steps must be at least 1");
        let path = folder.join(ACTIONS);
        let (shape, actions) = read_finite(&path)?;
        let observations = folder.join("obs.npy");
        let observations = if observations.exists() { Some(read_rows(&observations, shape[0])?) } else { None };
        let (width, mut data) = match shape[..] {
            [n, length, width] if n * length * width > 0 => {
                let (conditions, observations) = observations.unwrap_or_default();
                let normalization = Normalization::default();
                (width, Sequences { actions, shape: [length, width], observations, conditions, normalization })
            }
            [moments, width] if moments * width > 0 => {
                let ends = read_ends(&folder.join("episode_ends.npy"), moments)?;
                (width, cut(&actions, width, observations, &ends, windows))
            }
            _ => bail!(
                "{} has shape {shape:?}: give windows of actions [N, T, D], or the actions of every moment [M, D] with episode_ends.npy",
                path.display()
            ),
        };
        let of = |rows: &[f32], width| match scale {
            Scale::MinMax => Statistics::min_max(rows, width),
            Scale::MeanStd => Statistics::mean_std(rows, width),
        };
        let mut statistics = vec![(SAMPLE.to_string(), of(&data.actions, width))];
        if data.conditions > 0 {
            statistics.push((CONDITION.to_string(), of(&data.observations, data.conditions)));
        }
        data.normalization = Normalization::new(statistics)?;
        let normalizer = data.normalizer(&data.normalization)?;
        normalizer.normalize(&mut data.actions);
        if let Some(scaling) = normalizer.conditions.get(CONDITION) {
            scaling.normalize(&mut data.observations);
        }
        Ok(data)
    }

    fn normalizer(&self, normalization: &Normalization) -> Result<Normalizer> {
        let shape = [self.conditions];
        let conditions = [(CONDITION, &shape[..])];
        Ok(normalization.normalizer(SAMPLE, &self.shape, if self.conditions > 0 { &conditions } else { &[] })?)
    }

    /// Whether these statistics scale as this data was.
    ///
    /// # Errors
    /// When they are of other data.
    pub fn is_scaled_by(&self, normalization: &Normalization) -> Result<bool> {
        Ok(self.normalizer(normalization)? == self.normalizer(&self.normalization)?)
    }

    /// One sequence's shape, `[T, D]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The numbers that a sequence is conditioned on.
    pub fn conditions(&self) -> usize {
        self.conditions
    }

    /// The actions of sequence `i`.
    fn actions(&self, i: usize) -> &[f32] {
        let len = self.shape[0] * self.shape[1];
        &self.actions[i * len..][..len]
    }

    /// What sequence `i` is conditioned on.
    fn observations(&self, i: usize) -> &[f32] {
        &self.observations[i * self.conditions..][..self.conditions]
    }
}

impl Samples for Sequences {
    fn count(&self) -> usize {
        self.actions.len() / (self.shape[0] * self.shape[1])
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn append(&self, i: usize, out: &mut Vec<f32>) {
        out.extend_from_slice(self.actions(i));
    }

    fn given(&self, i: usize) -> Condition<'_> {
        Condition::Numbers(self.observations(i))
    }
}

fn read_finite(path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    let (shape, values) = read_npy(path)?;
    ensure!(values.iter().all(|v| v.is_finite()), "{} holds numbers that are not finite", path.display());
    ensure!(!shape.is_empty(), "{} holds a single number", path.display());
    Ok((shape, values))
}

/// The numbers of a row, and all rows.
fn read_rows(path: &Path, count: usize) -> Result<(usize, Vec<f32>)> {
    let (shape, values) = read_finite(path)?;
    ensure!(
        shape[0] == count && !values.is_empty(),
        "{} has shape {shape:?}, but there are {count} actions: give [{count}, C]",
        path.display()
    );
    Ok((values.len() / count, values))
}

/// The ends of the demonstrations, which are whole numbers of any type.
fn read_ends(path: &Path, moments: usize) -> Result<Vec<usize>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!("cannot read {}, which says where each demonstration of the {moments} actions ends", path.display())
    })?;
    let wrong = || format!("{} should hold rising indices, the last {moments}, as integers", path.display());
    let npy = npyz::NpyFile::new(&bytes[..]).with_context(wrong)?;
    let ends: Vec<i64> = match npy.try_data::<i64>() {
        Ok(data) => data.collect::<std::io::Result<_>>()?,
        Err(npy) => match npy.try_data::<i32>() {
            Ok(data) => data.map(|v| v.map(i64::from)).collect::<std::io::Result<_>>()?,
            Err(_) => bail!(wrong()),
        },
    };
    let rising = ends.first().is_some_and(|first| *first > 0) && ends.windows(2).all(|w| w[0] < w[1]);
    ensure!(rising && ends.last() == Some(&(moments as i64)), wrong());
    Ok(ends.into_iter().map(|e| e as usize).collect())
}

fn cut(
    actions: &[f32],
    width: usize,
    observations: Option<(usize, Vec<f32>)>,
    ends: &[usize],
    windows: Windows,
) -> Sequences {
    let (observed, observations) = observations.unwrap_or_default();
    let (mut cut, mut seen) = (Vec::new(), Vec::new());
    let mut first = 0;
    for &end in ends {
        for moment in first..end {
            for step in 0..windows.horizon {
                let at = (moment + step).min(end - 1);
                cut.extend_from_slice(&actions[at * width..][..width]);
            }
            for back in (0..windows.moments).rev() {
                let at = moment.saturating_sub(back).max(first);
                seen.extend_from_slice(&observations[at * observed..][..observed]);
            }
        }
        first = end;
    }
    Sequences {
        actions: cut,
        shape: [windows.horizon, width],
        observations: seen,
        conditions: observed * windows.moments,
        normalization: Normalization::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgegen::output::{encode_npy, write_file};
    use npyz::WriterBuilder;

    const WINDOWS: Windows = Windows { horizon: 3, moments: 2 };

    fn write(folder: &Path, name: &str, shape: &[usize], values: &[f32]) {
        let rows: Vec<&[f32]> = values.chunks(shape.iter().product()).collect();
        write_file(&folder.join(name), &encode_npy(&rows, shape).unwrap()).unwrap();
    }

    fn write_ends(folder: &Path, ends: &[i64]) {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[ends.len() as u64])
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer.extend(ends.iter().copied()).unwrap();
        writer.finish().unwrap();
        std::fs::write(folder.join("episode_ends.npy"), bytes).unwrap();
    }

    #[test]
    fn demonstrations_are_cut_at_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // two demonstrations, of two and of three moments; actions from 0 to 4, observations from 0 to 40
        write(folder, ACTIONS, &[1], &[0.0, 1.0, 2.0, 3.0, 4.0]);
        write(folder, "obs.npy", &[1], &[0.0, 10.0, 20.0, 30.0, 40.0]);
        write_ends(folder, &[2, 5]);
        let data = Sequences::open(folder, WINDOWS, Scale::MinMax).unwrap();
        assert_eq!((data.count(), data.shape(), data.conditions()), (5, [3, 1], 2));
        let actions = |i: usize| data.actions(i).iter().map(|v| (v + 1.0) * 2.0).collect::<Vec<_>>();
        assert_eq!(actions(0), [0.0, 1.0, 1.0]);
        assert_eq!(actions(2), [2.0, 3.0, 4.0]);
        assert_eq!(actions(4), [4.0, 4.0, 4.0]);
        // each moment of an observation has a column, and statistics, of its own: the first sees 0 to 30, the second 0 to 40
        let seen = |i: usize| {
            let row = data.observations(i);
            [(row[0] + 1.0) * 15.0, (row[1] + 1.0) * 20.0].map(|v| v.round())
        };
        assert_eq!([seen(0), seen(1), seen(2), seen(3)], [[0.0, 0.0], [0.0, 10.0], [20.0, 20.0], [20.0, 30.0]]);
    }

    #[test]
    fn windows_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), ACTIONS, &[2, 1], &[1.0, 3.0, 5.0, 7.0]);
        let data = Sequences::open(folder.path(), WINDOWS, Scale::MeanStd).unwrap();
        assert_eq!((data.count(), data.shape(), data.conditions()), (2, [2, 1], 0));
        let std = 5f32.sqrt();
        for (got, want) in data.actions(1).iter().zip([1.0 / std, 3.0 / std]) {
            assert!((got - want).abs() < 1e-6, "{got} should be {want}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let error = || format!("{:#}", Sequences::open(folder, WINDOWS, Scale::MinMax).unwrap_err());
        write(folder, ACTIONS, &[1], &[0.0, 1.0, 2.0]);
        assert!(error().contains("episode_ends.npy"), "{}", error());
        write_ends(folder, &[2]);
        assert!(error().contains("the last 3"), "{}", error());
        write_ends(folder, &[2, 2, 3]);
        assert!(error().contains("rising"), "{}", error());
        write_ends(folder, &[3]);
        write(folder, "obs.npy", &[1], &[0.0, 1.0]);
        assert!(error().contains("there are 3 actions"), "{}", error());
        write(folder, "obs.npy", &[1], &[0.0, 1.0, f32::NAN]);
        assert!(error().contains("not finite"), "{}", error());
        write(folder, "obs.npy", &[1], &[0.0, 1.0, 2.0]);
        write(folder, ACTIONS, &[1, 1, 1], &[0.0, 1.0, 2.0]);
        assert!(error().contains("[3, 1, 1, 1]"), "{}", error());
    }
}
