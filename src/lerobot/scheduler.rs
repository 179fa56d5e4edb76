//! How a LeRobot policy samples, as our configuration.
//!
//! A policy's `config.json` says how it makes its actions: by a scheduler of diffusers, or by following a flow, in one of
//! two directions of time. [`scheduler_config`] reads every field that changes the sample; what it does not know of
//! sampling it refuses.

use crate::config::SchedulerConfig;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// The scheduler of a LeRobot policy whose `config.json` has this text; `None` if it is no such policy's.
///
/// # Errors
/// When it is, and asks for something that is not supported, or that makes no sense.
pub(crate) fn scheduler_config(text: &str) -> Result<Option<SchedulerConfig>> {
    let Ok(Value::Object(policy)) = serde_json::from_str(text) else { return Ok(None) };
    let Some(kind) = policy.get("type").and_then(Value::as_str) else { return Ok(None) };
    let policy = Policy { kind, fields: &policy };
    let (config, read) = match (kind, policy.text("objective")?) {
        ("multi_task_dit", Some("flow_matching")) => policy.flow_to_data()?,
        // one time runs as in diffusers' flows, and from 1 to 0
        ("smolvla" | "pi0" | "pi05", None) => policy.flow_to_noise(),
        (_, None | Some("diffusion")) if policy.fields.contains_key("noise_scheduler_type") => policy.diffusion()?,
        (_, Some(objective)) => {
            return Err(Error::invalid(format!(
                "the objective {objective} of a LeRobot policy of type {kind} is not supported: diffusion and flow_matching are"
            )));
        }
        _ => return Ok(None),
    };
    policy.refuse_others(&read)?;
    SchedulerConfig::from_json(&Value::Object(config).to_string()).map(Some)
}

/// What a policy's `config.json` says of its control loop; what it does not say is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// The control steps whose observations a plan is made of.
    pub n_obs_steps: Option<usize>,
    /// The actions of a plan: `horizon`, or `chunk_size` of policies that call it so.
    pub horizon: Option<usize>,
    /// Those of them that are carried out.
    pub n_action_steps: Option<usize>,
}

impl Control {
    /// What a `config.json` of this text says.
    ///
    /// # Errors
    /// When it is no JSON object, or one of these is no number from 1 on.
    pub fn from_json(text: &str) -> Result<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(Error::invalid("a policy's config.json is a JSON object"));
        };
        let read = |name: &str| match fields.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
                Some(n) => Ok(Some(n)),
                None => {
                    Err(Error::invalid(format!("{name} of a policy must be a whole number from 1 on, not {value}")))
                }
            },
        };
        let horizon = read("horizon")?.or(read("chunk_size")?);
        Ok(Control { n_obs_steps: read("n_obs_steps")?, horizon, n_action_steps: read("n_action_steps")? })
    }
}

/// A policy's type and fields.
struct Policy<'a> {
    kind: &'a str,
    fields: &'a Map<String, Value>,
}

/// A configuration in diffusers' form, and the policy's fields that it was made of.
type Read = (Map<String, Value>, Vec<&'static str>);

impl Policy<'_> {
    /// A field, unless it is null.
    fn given(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&str>> {
        self.given(name).map(|value| value.as_str().ok_or_else(|| self.wrong(name, value))).transpose()
    }

    fn wrong(&self, name: &str, value: &Value) -> Error {
        Error::invalid(format!("{name} of a LeRobot policy of type {} cannot be {value}", self.kind))
    }

    /// A scheduler of diffusers, made with these fields and no others.
    fn diffusion(&self) -> Result<Read> {
        type Default = fn() -> Value;
        const FIELDS: [(&str, Default); 7] = [
            ("num_train_timesteps", || json!(100)),
            ("beta_schedule", || json!("squaredcos_cap_v2")),
            ("beta_start", || json!(0.0001)),
            ("beta_end", || json!(0.02)),
            ("prediction_type", || json!("epsilon")),
            ("clip_sample", || json!(true)),
            ("clip_sample_range", || json!(1.0)),
        ];
        let class = match self.text("noise_scheduler_type")? {
            Some("DDPM") | None => "DDPMScheduler",
            Some("DDIM") => "DDIMScheduler",
            Some(other) => return Err(self.wrong("noise_scheduler_type", &json!(other))),
        };
        let mut config = Map::new();
        for (name, default) in FIELDS {
            config.insert(name.into(), self.given(name).cloned().unwrap_or_else(default));
        }
        // as many steps as in training where none are given
        let steps = self.given("num_inference_steps").unwrap_or(&config["num_train_timesteps"]).clone();
        config.insert("num_inference_steps".into(), steps);
        config.insert("_class_name".into(), json!(class));
        let own = ["noise_scheduler_type", "num_inference_steps", "objective"];
        // of the other objective
        let other = ["sigma_min", "num_integration_steps", "integration_method"];
        Ok((config, FIELDS.iter().map(|(name, _)| *name).chain(own).chain(other).collect()))
    }

    /// A flow whose time runs from 0, noise, to 1, the data: `v = x_0 - ε`.
    fn flow_to_data(&self) -> Result<Read> {
        // the noise that was left in the data in training; the way from noise does not depend on it
        if let Some(sigma) = self.given("sigma_min").filter(|s| !s.as_f64().is_some_and(|s| (0.0..1.0).contains(&s))) {
            return Err(self.wrong("sigma_min", sigma));
        }
        let steps = self.given("num_integration_steps").cloned().unwrap_or(json!(100));
        let method = self.given("integration_method").cloned().unwrap_or(json!("euler"));
        let config = flow("flow_to_data", steps, method);
        // of the other objective
        let mut read = vec![
            "noise_scheduler_type",
            "num_train_timesteps",
            "beta_schedule",
            "beta_start",
            "beta_end",
            "prediction_type",
            "clip_sample",
            "clip_sample_range",
            "num_inference_steps",
        ];
        read.extend(["objective", "sigma_min", "num_integration_steps", "integration_method"]);
        Ok((config, read))
    }

    /// A flow whose time runs from 1, noise, to 0, the data: `v = ε - x_0`.
    fn flow_to_noise(&self) -> Read {
        // the same by the names of several versions
        let names = ["num_steps", "num_inference_steps"];
        let steps = names.iter().find_map(|name| self.given(name)).cloned().unwrap_or(json!(10));
        (flow("flow_prediction", steps, json!("euler")), names.to_vec())
    }

    /// A field that is not read, has a word of sampling in its name, and is not known to be about something else.
    fn refuse_others(&self, read: &[&str]) -> Result<()> {
        const WORDS: [&str; 17] = [
            "noise",
            "step",
            "sigma",
            "time",
            "beta",
            "sampl",
            "clip",
            "guid",
            "integr",
            "flow",
            "solver",
            "denois",
            "eta",
            "temperature",
            "predict",
            "objective",
            "rtc",
        ];
        // of the observations, of the network inside, of training, and of what becomes of the actions
        const OTHERS: [&str; 22] = [
            "n_obs_steps",
            "n_action_steps",
            "timestep_embed_dim",
            "diffusion_step_embed_dim",
            "scheduler_warmup_steps",
            "scheduler_decay_steps",
            "optimizer_betas",
            "optimizer_grad_clip_norm",
            "timestep_sampling_strategy",
            "timestep_sampling_s",
            "timestep_sampling_alpha",
            "timestep_sampling_beta",
            "time_sampling_beta_alpha",
            "time_sampling_beta_beta",
            "time_sampling_scale",
            "time_sampling_offset",
            "use_relative_actions",
            "relative_exclude_joints",
            "vision_encoder_name",
            "text_encoder_name",
            "pretrained_path",
            "n_action_pred_steps",
        ];
        // of no effect where they are off
        let off = |value: &Value| value.is_null() || *value == json!(false);
        let unknown = self.fields.iter().find(|(name, value)| {
            let name = name.as_str();
            let sampling = WORDS.iter().any(|word| name.split('_').any(|part| part.starts_with(word)));
            sampling && !read.contains(&name) && !OTHERS.contains(&name) && !off(value)
        });
        match unknown {
            None => Ok(()),
            Some((name, value)) => Err(Error::invalid(format!(
                "the field {name} of a LeRobot policy of type {} is not understood, and {value} may change its samples: give --scheduler-config, or take it out",
                self.kind
            ))),
        }
    }
}

/// Our own class for a flow whose network takes times from 0 to 1.
fn flow(prediction: &str, steps: Value, method: Value) -> Map<String, Value> {
    let Value::Object(config) = json!({
        "_class_name": "RectifiedFlow",
        "prediction_type": prediction,
        "time_scale": 1.0,
        "num_inference_steps": steps,
        "integration_method": method,
    }) else {
        unreachable!("an object is one")
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlowTime, PredictionType};

    fn read(text: &str) -> SchedulerConfig {
        scheduler_config(text).unwrap().unwrap()
    }

    #[test]
    fn a_policys_schedule_is_its_schedulers() {
        let text = r#"{"type": "diffusion", "noise_scheduler_type": "DDIM", "num_train_timesteps": 100,
            "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02, "horizon": 16, "n_obs_steps": 2,
            "prediction_type": "sample", "clip_sample": true, "clip_sample_range": 1.5, "num_inference_steps": null}"#;
        let config = read(text);
        assert_eq!((config.num_train_timesteps, config.class.class_name.as_deref()), (100, Some("DDIMScheduler")));
        assert_eq!((config.prediction_type, config.clip_sample_range), (PredictionType::Sample, 1.5));
        // null is as many as in training
        assert_eq!(config.class.num_inference_steps, Some(100));
        assert_eq!(config.unknown_fields().count(), 0);
        assert_eq!(scheduler_config(r#"{"type": "act"}"#).unwrap(), None);
        assert_eq!(scheduler_config(r#"{"_class_name": "UNet2DModel"}"#).unwrap(), None);
    }

    #[test]
    fn a_policys_control_loop_is_read() {
        let control = |n_obs_steps, horizon, n_action_steps| Control { n_obs_steps, horizon, n_action_steps };
        let read = |text: &str| Control::from_json(text);
        let text = r#"{"type": "diffusion", "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8}"#;
        assert_eq!(read(text).unwrap(), control(Some(2), Some(16), Some(8)));
        let text = r#"{"type": "smolvla", "n_obs_steps": 1, "chunk_size": 50, "n_action_steps": null}"#;
        assert_eq!(read(text).unwrap(), control(Some(1), Some(50), None));
        assert_eq!(read("{}").unwrap(), Control::default());
        for (text, part) in [("[2]", "a JSON object"), (r#"{"n_obs_steps": 0}"#, "n_obs_steps of a policy must be")] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_flow_runs_in_the_policys_direction() {
        let config = read(
            r#"{"type": "multi_task_dit", "objective": "flow_matching", "noise_scheduler_type": "DDIM", "sigma_min": 0.0,
            "num_inference_steps": 10, "num_integration_steps": 25, "integration_method": "rk4", "timestep_sampling_s": 0.999}"#,
        );
        assert_eq!(
            (config.prediction(), config.flow_time()),
            (PredictionType::FlowToData, Some(FlowTime::Signal(1.0)))
        );
        assert_eq!(config.class.num_inference_steps, Some(25));
        let config = read(r#"{"type": "smolvla", "num_steps": 8, "n_action_steps": 50, "rtc_config": null}"#);
        assert_eq!((config.prediction(), config.flow_time()), (PredictionType::Flow, Some(FlowTime::Noise(1.0))));
        assert_eq!(config.class.num_inference_steps, Some(8));
    }

    #[test]
    fn what_is_not_understood_of_sampling_is_refused_by_name() {
        for (text, part) in [
            (r#"{"type": "smolvla", "rtc_config": {"enabled": true}}"#, "the field rtc_config"),
            (
                r#"{"type": "diffusion", "noise_scheduler_type": "DDIM", "guidance_scale": 2}"#,
                "the field guidance_scale",
            ),
            (r#"{"type": "diffusion", "noise_scheduler_type": "EDM"}"#, "noise_scheduler_type"),
            (r#"{"type": "multi_task_dit", "objective": "drifting"}"#, "the objective drifting"),
            (r#"{"type": "multi_task_dit", "objective": "flow_matching", "sigma_min": 2}"#, "sigma_min"),
            (
                r#"{"type": "multi_task_dit", "objective": "flow_matching", "integration_method": "ab2"}"#,
                "integration_method",
            ),
        ] {
            let error = scheduler_config(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
