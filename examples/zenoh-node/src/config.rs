//! The node's configuration: a YAML file, as data. `docs/robots.md` lists what it may say.

use crate::message::{Decoder, Encoder, Field};
use edgegen::policy::{Chunking, Jacobian, Joint, PolicyBuilder, Timing, WhenDry};
use edgegen::{Model, Result as EdgegenResult};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zenoh::key_expr::KeyExpr;

/// What went wrong, in one line.
pub type Result<T> = std::result::Result<T, String>;

/// All of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub zenoh: Zenoh,
    /// The model's file.
    pub model: PathBuf,
    #[serde(default)]
    pub policy: Policy,
    /// From one control step to the next.
    pub period_ms: f64,
    /// The observation that a control step waits for; without it steps go by the clock alone.
    pub step_on: Option<String>,
    /// By the names that the policy has for them.
    pub observations: BTreeMap<String, Observation>,
    pub action: Action,
    pub operator: Option<Operator>,
    pub heartbeat: Option<Report>,
    pub status: Option<Report>,
    #[serde(default)]
    pub safe_stop: SafeStop,
    /// A file that gets a line for each action: when it was published, and how old its observation was.
    pub latency_csv: Option<PathBuf>,
}

/// How the node comes into the network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zenoh {
    pub mode: Option<Mode>,
    #[serde(default)]
    pub connect: Vec<String>,
    #[serde(default)]
    pub listen: Vec<String>,
    pub multicast_scouting: Option<bool>,
    /// A configuration of Zenoh's own, which the keys above are put on top of.
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Peer,
    Client,
    Router,
}

/// `edgegen::policy`'s settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Network calls a plan.
    pub steps: Option<usize>,
    pub sampler: Option<String>,
    pub threads: Option<usize>,
    pub n_obs_steps: Option<usize>,
    pub n_action_steps: Option<usize>,
    pub first_action: Option<usize>,
    #[serde(default)]
    pub join: Join,
    #[serde(default)]
    pub jacobian: Derivative,
    pub warm_start: Option<f64>,
    pub ensemble: Option<f64>,
    pub budget_ms: Option<f64>,
    pub expected_delay: Option<usize>,
    #[serde(default)]
    pub seed: u64,
    pub class: Option<usize>,
    /// Conditions that are no observations, such as a goal.
    #[serde(default)]
    pub conditions: BTreeMap<String, Vec<f32>>,
    /// Conditions that are made of several observations, in this order.
    #[serde(default)]
    pub observed_as: BTreeMap<String, Vec<Part>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub name: String,
    pub size: usize,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    #[default]
    Switch,
    Inpaint,
    Chunk,
    Prefix,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Derivative {
    #[default]
    Difference,
    Diagonal,
}

/// Where an observation comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    pub key: String,
    #[serde(default)]
    pub message: ObservationMessage,
    /// The joints of a `joint_state`, in the network's order.
    pub joints: Option<Vec<String>>,
    /// What is taken of each joint, one field after the other.
    pub fields: Option<Vec<Field>>,
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// The age from which on it is not acted upon.
    pub max_age_ms: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ObservationMessage {
    #[default]
    F32,
    Rgb8,
    Float32MultiArray,
    Float64MultiArray,
    JointState,
    Image,
}

/// Where actions go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    pub key: String,
    #[serde(default)]
    pub message: ActionMessage,
    /// The joints of a `joint_state`, in the network's order.
    pub joints: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ActionMessage {
    #[default]
    F32,
    Float32MultiArray,
    Float64MultiArray,
    JointState,
}

/// The heartbeat of whoever watches over the robot.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    pub key: String,
    pub timeout_ms: f64,
}

/// What the node tells of itself, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub key: String,
    pub period_ms: f64,
    #[serde(default)]
    pub message: ReportMessage,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ReportMessage {
    /// A heartbeat of eight bytes, a status of JSON.
    #[default]
    Plain,
    /// `std_msgs/UInt64` and `std_msgs/String`.
    Ros,
}

/// What is published while the policy must not act.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafeStop {
    #[serde(default)]
    pub action: StopAction,
    /// The numbers of `action: values`.
    pub values: Option<Vec<f32>>,
    /// Whether the policy acts again once what stopped it is over.
    #[serde(default = "yes")]
    pub resume: bool,
}

impl Default for SafeStop {
    fn default() -> Self {
        SafeStop { action: StopAction::Hold, values: None, resume: true }
    }
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum StopAction {
    /// The last action again.
    #[default]
    Hold,
    Zero,
    Values,
}

impl Config {
    /// Reads a file and checks what can be checked without the model. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, says what is not known, or has a value that cannot be meant.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut config = Config::read(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.model = folder.join(&config.model);
        config.zenoh.config = config.zenoh.config.map(|file| folder.join(file));
        config.latency_csv = config.latency_csv.map(|file| folder.join(file));
        Ok(config)
    }

    /// The same from the file's text.
    ///
    /// # Errors
    /// As those of [`Config::open`].
    pub fn read(text: &str) -> Result<Self> {
        let config: Config = serde_saphyr::from_str(text).map_err(|e| one_line(&e.without_snippet().to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        duration("period_ms", self.period_ms)?;
        if let Some(name) = self.step_on.as_ref().filter(|name| !self.observations.contains_key(*name)) {
            return Err(format!("step_on: there is no observation '{name}': {}", self.names()));
        }
        match self.observations.len() {
            0 => return Err("observations: there must be one at least".into()),
            n if n > 8 => return Err(format!("observations: there are {n}, but at most 8 can be taken")),
            _ => {}
        }
        for (name, observation) in &self.observations {
            observation.check().map_err(|e| format!("observations.{name}.{e}"))?;
        }
        self.action.check().map_err(|e| format!("action.{e}"))?;
        if let Some(operator) = &self.operator {
            key(&operator.key).map_err(|e| format!("operator.{e}"))?;
            duration("operator.timeout_ms", operator.timeout_ms)?;
        }
        for (name, report) in [("heartbeat", &self.heartbeat), ("status", &self.status)] {
            if let Some(report) = report {
                key_to_publish(&report.key).map_err(|e| format!("{name}.{e}"))?;
                duration(&format!("{name}.period_ms"), report.period_ms)?;
            }
        }
        if let Some(budget) = self.policy.budget_ms {
            duration("policy.budget_ms", budget)?;
        }
        match (self.safe_stop.action, &self.safe_stop.values) {
            (StopAction::Values, None) => Err("safe_stop.values: 'action: values' needs them".into()),
            (StopAction::Hold | StopAction::Zero, Some(_)) => {
                Err("safe_stop.values: they are published by 'action: values' alone".into())
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> String {
        self.observations.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub fn period(&self) -> Duration {
        millis(self.period_ms)
    }

    /// The action that stops the robot, of so many numbers; none for the last one again.
    pub fn stop_action(&self, width: usize) -> Option<Vec<f32>> {
        match self.safe_stop.action {
            StopAction::Hold => None,
            StopAction::Zero => Some(vec![0.0; width]),
            StopAction::Values => self.safe_stop.values.clone(),
        }
    }

    /// The policy, on a thread of its own.
    ///
    /// # Errors
    /// When the settings do not fit the model, or one another.
    pub fn build_policy(&self, model: &Model) -> EdgegenResult<edgegen::policy::Policy> {
        let settings = &self.policy;
        let mut generator = model.generator();
        if let Some(steps) = settings.steps {
            generator = generator.steps(steps);
        }
        if let Some(sampler) = &settings.sampler {
            generator = generator.sampler(sampler);
        }
        if let Some(threads) = settings.threads {
            generator = generator.threads(threads);
        }
        let mut policy = generator.policy().timing(Timing::Asynchronous).seed(settings.seed);
        type Set = fn(PolicyBuilder, usize) -> PolicyBuilder;
        let some: [(_, Set); 5] = [
            (settings.n_obs_steps, PolicyBuilder::n_obs_steps),
            (settings.n_action_steps, PolicyBuilder::n_action_steps),
            (settings.first_action, PolicyBuilder::first_action),
            (settings.expected_delay, PolicyBuilder::expected_delay),
            (settings.class, PolicyBuilder::class),
        ];
        for (value, set) in some {
            policy = value.into_iter().fold(policy, set);
        }
        policy = settings.warm_start.into_iter().fold(policy, PolicyBuilder::warm_start);
        policy = settings.ensemble.into_iter().fold(policy, PolicyBuilder::ensemble);
        policy = settings.budget_ms.map(millis).into_iter().fold(policy, PolicyBuilder::budget);
        for (name, values) in &settings.conditions {
            policy = policy.condition(name, values.clone());
        }
        for (name, parts) in &settings.observed_as {
            let parts: Vec<(&str, usize)> = parts.iter().map(|part| (part.name.as_str(), part.size)).collect();
            policy = policy.observed_as(name, &parts);
        }
        let jacobian = match settings.jacobian {
            Derivative::Difference => Jacobian::Difference,
            Derivative::Diagonal => Jacobian::Diagonal,
        };
        policy = policy.joint(match settings.join {
            Join::Switch => Joint::Switch,
            Join::Inpaint => Joint::Inpaint,
            Join::Chunk => Joint::Chunk({
                let mut chunking = Chunking::default();
                chunking.jacobian = jacobian;
                chunking
            }),
            Join::Prefix => Joint::Prefix,
        });
        let [_, width] = <[usize; 2]>::try_from(model.sample_shape()).unwrap_or_default();
        let stop = self.stop_action(width);
        policy.when_dry(stop.map_or(WhenDry::Hold, WhenDry::Safe)).build()
    }
}

impl Observation {
    fn check(&self) -> Result<()> {
        key(&self.key)?;
        duration("max_age_ms", self.max_age_ms)?;
        let is_joints = self.message == ObservationMessage::JointState;
        let is_picture = matches!(self.message, ObservationMessage::Rgb8 | ObservationMessage::Image);
        belongs("joints", self.joints.is_some(), is_joints, is_joints, "message: joint_state")?;
        belongs("fields", self.fields.is_some(), is_joints, false, "message: joint_state")?;
        let pictures = "message: image and message: rgb8";
        belongs("width", self.width.is_some(), is_picture, is_picture, pictures)?;
        belongs("height", self.height.is_some(), is_picture, is_picture, pictures)
    }

    /// What reads its messages, of which the policy takes `len` numbers.
    ///
    /// # Errors
    /// When the messages have another number of them.
    pub fn decoder(&self, len: usize) -> Result<Decoder> {
        let joints = || self.joints.clone().unwrap_or_default();
        let fields = || self.fields.clone().unwrap_or_else(|| vec![Field::Position]);
        let size = (self.width.unwrap_or(0), self.height.unwrap_or(0));
        let decoder = match self.message {
            ObservationMessage::F32 => Decoder::F32 { len },
            ObservationMessage::Float32MultiArray => Decoder::Float32MultiArray { len },
            ObservationMessage::Float64MultiArray => Decoder::Float64MultiArray { len },
            ObservationMessage::JointState => Decoder::JointState { joints: joints(), fields: fields() },
            ObservationMessage::Rgb8 => Decoder::picture(false, size, len)?,
            ObservationMessage::Image => Decoder::picture(true, size, len)?,
        };
        match decoder.len() {
            found if found == len => Ok(decoder),
            found => Err(format!("its messages have {found} numbers, but the policy takes {len}")),
        }
    }

    pub fn max_age(&self) -> Duration {
        millis(self.max_age_ms)
    }
}

impl Action {
    fn check(&self) -> Result<()> {
        key_to_publish(&self.key)?;
        let is_joints = self.message == ActionMessage::JointState;
        belongs("joints", self.joints.is_some(), is_joints, is_joints, "message: joint_state")
    }

    /// What writes its messages, of `width` numbers.
    ///
    /// # Errors
    /// When there is another number of joints.
    pub fn encoder(&self, width: usize) -> Result<Encoder> {
        Ok(match self.message {
            ActionMessage::F32 => Encoder::F32,
            ActionMessage::Float32MultiArray => Encoder::Float32MultiArray,
            ActionMessage::Float64MultiArray => Encoder::Float64MultiArray,
            ActionMessage::JointState => match self.joints.clone().unwrap_or_default() {
                joints if joints.len() == width => Encoder::JointState { joints },
                joints => {
                    return Err(format!(
                        "action.joints: there are {}, but an action has {width} numbers",
                        joints.len()
                    ));
                }
            },
        })
    }
}

impl Operator {
    pub fn timeout(&self) -> Duration {
        millis(self.timeout_ms)
    }
}

impl Report {
    pub fn period(&self) -> Duration {
        millis(self.period_ms)
    }
}

impl Zenoh {
    /// Zenoh's own configuration.
    ///
    /// # Errors
    /// When its file or an endpoint is not what Zenoh takes.
    pub fn to_config(&self) -> Result<zenoh::Config> {
        let failed = |what: &str, e: &dyn std::fmt::Display| one_line(&format!("zenoh.{what}: {e}"));
        let mut config = match &self.config {
            Some(file) => zenoh::Config::from_file(file).map_err(|e| failed("config", &e))?,
            None => zenoh::Config::default(),
        };
        let mut set = |key: &str, value: String| config.insert_json5(key, &value).map_err(|e| failed(key, &e));
        let text = |list: &[String]| serde_json::to_string(list).expect("text is JSON");
        match self.mode {
            None => {}
            Some(Mode::Peer) => set("mode", "\"peer\"".into())?,
            Some(Mode::Client) => set("mode", "\"client\"".into())?,
            Some(Mode::Router) => set("mode", "\"router\"".into())?,
        }
        if !self.connect.is_empty() {
            set("connect/endpoints", text(&self.connect))?;
        }
        if !self.listen.is_empty() {
            set("listen/endpoints", text(&self.listen))?;
        }
        // nobody is looked for unless that is asked for
        if let Some(multicast) = self.multicast_scouting.or(self.config.is_none().then_some(false)) {
            set("scouting/multicast/enabled", multicast.to_string())?;
        }
        Ok(config)
    }
}

/// So many milliseconds, which were checked.
fn millis(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1e3)
}

fn duration(name: &str, milliseconds: f64) -> Result<()> {
    // a minute is longer than any of these is meant to be
    match milliseconds {
        ms if (0.01..=60_000.0).contains(&ms) => Ok(()),
        ms => Err(format!("{name} must be from 0.01 to 60000 milliseconds, not {ms}")),
    }
}

fn belongs(name: &str, is_given: bool, is_allowed: bool, is_needed: bool, to: &str) -> Result<()> {
    match is_given {
        true if !is_allowed => Err(format!("{name}: it belongs to {to} alone")),
        false if is_needed => Err(format!("{name}: it is needed with {to}")),
        _ => Ok(()),
    }
}

fn key(key: &str) -> Result<()> {
    match KeyExpr::try_from(key) {
        Ok(_) => Ok(()),
        Err(e) => Err(one_line(&format!("key: '{key}' is no key expression: {e}"))),
    }
}

fn key_to_publish(text: &str) -> Result<()> {
    key(text)?;
    match text.contains('*') {
        true => Err(format!("key: '{text}' is what is published under, which has no wildcards")),
        false => Ok(()),
    }
}

/// A message without what only the next lines of it would explain.
pub fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
