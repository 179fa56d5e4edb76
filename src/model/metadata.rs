//! What a model says of itself: the `metadata_props` of its file, and `scheduler_config.json` beside it.

use super::join::Join;
use super::role::Role;
use super::time::TimeAs;
use crate::config::SchedulerConfig;
use crate::normalization::Normalization;
use crate::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

/// What a model says of itself. Everything is optional: `docs/model-contract.md` lists the keys.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// `edgegen.scheduler`: the noise schedule, in diffusers' JSON.
    pub scheduler: Option<SchedulerConfig>,
    /// `edgegen.classes`: the classes' names, in the order of their indices.
    pub classes: Vec<String>,
    /// `edgegen.null_class`: the label that stands for "no class".
    pub null_class: Option<usize>,
    /// `edgegen.value_range`: the least and the greatest value of a sample.
    pub value_range: Option<(f32, f32)>,
    /// `edgegen.sample_shape`: one sample's shape, where the graph leaves a dimension open.
    pub sample_shape: Option<Vec<usize>>,
    /// `edgegen.guidance`: the classifier-free guidance weight that suits the model.
    pub guidance: Option<f32>,
    /// `edgegen.sampler`: the sampler that suits the model.
    pub sampler: Option<String>,
    /// `edgegen.spacing`: the step spacing that suits the model.
    pub spacing: Option<crate::config::Spacing>,
    /// `edgegen.steps`: the number of steps that suits the model.
    pub steps: Option<usize>,
    /// `edgegen.normalization`: the statistics that samples and conditions are scaled by.
    pub normalization: Option<Normalization>,
    /// `edgegen.time`: what the network is told of the noise.
    pub time: Option<TimeAs>,
    /// `edgegen.prefix`: the most rows at a sample's beginning that the network was trained to be given clean
    /// ([`Prefix`](crate::constraint::Prefix)).
    pub prefix: Option<usize>,
    /// `edgegen.join`: what the network takes in one with its sample, and how many channels each has.
    pub(super) joins: Vec<Join>,
    /// `edgegen.output`: the name of the output that is the prediction.
    pub output: Option<String>,
    /// `edgegen.role.ROLE`: the names of the inputs.
    pub roles: Vec<(Role, String)>,
}

impl Metadata {
    /// Reads the keys that are known; the rest is ignored.
    ///
    /// # Errors
    /// When the value of a known key is not of its form.
    pub fn from_props<'a>(props: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut m = Metadata::default();
        for (key, value) in props {
            let Some(name) = key.strip_prefix("edgegen.") else { continue };
            match name {
                "scheduler" => m.scheduler = Some(SchedulerConfig::from_json(value).map_err(|e| e.context(key))?),
                "classes" => m.classes = json(key, value, "an array of names")?,
                "null_class" => m.null_class = Some(json(key, value, "an index")?),
                "value_range" => m.value_range = Some(json(key, value, "two numbers")?),
                "sample_shape" => m.sample_shape = Some(json(key, value, "an array of dimensions")?),
                "guidance" => m.guidance = Some(json(key, value, "a number")?),
                "steps" => m.steps = Some(json(key, value, "a number of steps")?),
                "normalization" => {
                    m.normalization = Some(Normalization::from_json(value).map_err(|e| e.context(key))?);
                }
                "time" => m.time = Some(TimeAs::from_name(value).map_err(|e| e.context(key))?),
                "prefix" => m.prefix = Some(json(key, value, "a number of rows")?),
                "output" => m.output = Some(value.to_string()),
                "join" => m.joins = joins(key, value)?,
                "sampler" => m.sampler = Some(value.to_string()),
                "spacing" => m.spacing = Some(json(key, &format!("\"{value}\""), "a step spacing")?),
                _ => {
                    if let Some(role) = name.strip_prefix("role.").and_then(Role::from_name) {
                        m.roles.push((role, value.to_string()));
                    }
                }
            }
        }
        Ok(m)
    }
}

/// `["sample", ["mask", 1]]`: names with their channels, and the sample's place.
fn joins(key: &str, value: &str) -> Result<Vec<Join>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Part {
        Sample(String),
        Named(String, usize),
    }
    let what = "an array of names with their numbers of channels, such as [\"sample\", [\"mask\", 1]]";
    let parts: Vec<Part> = json(key, value, what)?;
    let join = |part| match part {
        Part::Sample(name) => Join::rest(&name),
        Part::Named(name, channels) => Join { name, shape: None, channels: Some(channels) },
    };
    Ok(parts.into_iter().map(join).collect())
}

fn json<T: DeserializeOwned>(key: &str, value: &str, what: &str) -> Result<T> {
    serde_json::from_str(value).map_err(|_| {
        Error::new(ErrorKind::Model, format!("the model's metadata {key} should be {what}, but is '{value}'"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_and_others_ignored() {
        let m = Metadata::from_props([
            ("edgegen.classes", r#"["cat", "dog"]"#),
            ("edgegen.null_class", "2"),
            ("edgegen.value_range", "[-1, 1]"),
            ("edgegen.scheduler", r#"{"num_train_timesteps": 7, "beta_schedule": "squaredcos_cap_v2"}"#),
            ("edgegen.role.time", "sigma"),
            ("edgegen.spacing", "trailing"),
            ("edgegen.time", "log-snr"),
            ("author", "somebody"),
            ("edgegen.something_new", "x"),
        ])
        .unwrap();
        assert_eq!(m.classes, ["cat", "dog"]);
        assert_eq!((m.null_class, m.value_range), (Some(2), Some((-1.0, 1.0))));
        assert_eq!(m.scheduler.unwrap().num_train_timesteps, 7);
        assert_eq!(m.roles, [(Role::Time, "sigma".to_string())]);
        assert_eq!(m.spacing, Some(crate::config::Spacing::Trailing));
        assert_eq!(m.time, Some(TimeAs::LogSnr));
    }

    #[test]
    fn a_value_of_the_wrong_form_is_an_error_that_names_the_key() {
        let error = Metadata::from_props([("edgegen.null_class", "none")]).unwrap_err().to_string();
        assert!(error.contains("edgegen.null_class should be an index, but is 'none'"), "{error}");
    }
}
