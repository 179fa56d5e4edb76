//! Stands for a robot: the task of `examples/policy`, whose observations it publishes and whose actions it carries out, an episode
//! after the other.
//!
//! ```text
//! simulator [--connect tcp/127.0.0.1:7447] [--listen ENDPOINT] [--hz 100] [--seconds 10] [--until-reached 5]
//!           [--state robot/state] [--action robot/action] [--operator robot/operator] [--drop 0.1] [--ros]
//! ```
//! It ends after so many seconds, or episodes that reached the goal. `--drop` is the share of observations that get lost on the
//! way, `--operator` publishes an operator's heartbeat, and with `--ros` messages are `std_msgs/Float32MultiArray`.

#[allow(dead_code, reason = "the expert of examples/policy uses the rest")]
#[path = "../../../policy/task.rs"]
mod task;

use edgegen::noise::Noise;
use edgegen_zenoh_node::config::Zenoh;
use edgegen_zenoh_node::message::{Decoder, Encoder};
use edgegen_zenoh_node::reporter::Outlet;
use edgegen_zenoh_node::status::Times;
use hdrhistogram::Histogram;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};
use task::{STEPS, State, V};
use zenoh::Wait;

struct Options {
    zenoh: Zenoh,
    period: Duration,
    seconds: f64,
    until_reached: u64,
    drop: f32,
    state: String,
    action: String,
    operator: Option<String>,
    is_ros: bool,
}

fn options(words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        zenoh: Zenoh::default(),
        period: Duration::from_millis(10),
        seconds: f64::INFINITY,
        until_reached: u64::MAX,
        drop: 0.0,
        state: "robot/state".into(),
        action: "robot/action".into(),
        operator: None,
        is_ros: false,
    };
    let mut words = words.peekable();
    while let Some(option) = words.next() {
        if option == "--ros" {
            options.is_ros = true;
            continue;
        }
        let value = words.next().ok_or(format!("{option} needs a value"))?;
        let number = || value.parse::<f64>().map_err(|_| format!("{option} must be a number, not '{value}'"));
        match option.as_str() {
            "--connect" => options.zenoh.connect.push(value),
            "--listen" => options.zenoh.listen.push(value),
            "--hz" => match number()? {
                hz if (0.1..=10_000.0).contains(&hz) => options.period = Duration::from_secs_f64(1.0 / hz),
                hz => return Err(format!("--hz must be from 0.1 to 10000, not {hz}")),
            },
            "--seconds" => options.seconds = number()?,
            "--until-reached" => options.until_reached = number()? as u64,
            "--drop" => options.drop = number()? as f32,
            "--state" => options.state = value,
            "--action" => options.action = value,
            "--operator" => options.operator = Some(value),
            _ => return Err(format!("there is no option {option}")),
        }
    }
    if options.zenoh.connect.is_empty() && options.zenoh.listen.is_empty() {
        options.zenoh.connect.push("tcp/127.0.0.1:7447".into());
    }
    if options.zenoh.listen.is_empty() {
        // where others may find it, but not other machines
        options.zenoh.listen.push("tcp/127.0.0.1:0".into());
    }
    Ok(options)
}

/// What became of the episodes.
#[derive(Default)]
struct Score {
    episodes: u64,
    reached: u64,
    observations: u64,
    actions: u64,
}

/// The robot on its table.
struct Robot {
    state: State,
    steps: usize,
    random: Noise,
    score: Score,
}

impl Robot {
    fn new() -> Self {
        // where episodes of examples/policy start from
        let mut random = Noise::new(1, 0);
        Robot { state: State::start(|| random.uniform()), steps: 0, random, score: Score::default() }
    }

    fn carry_out(&mut self, target: V) {
        self.score.actions += 1;
        self.state.step(target);
        self.steps += 1;
        if self.state.is_done() || self.steps == STEPS {
            self.score.episodes += 1;
            self.score.reached += u64::from(self.state.is_done());
            self.random = Noise::new(1, self.score.episodes);
            (self.state, self.steps) = (State::start(|| self.random.uniform()), 0);
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let failed = |e: zenoh::Error| e.to_string();
    let session = zenoh::open(options.zenoh.to_config()?).wait().map_err(failed)?;
    let mut outlet = Outlet::new(&session, &options.state)?;
    let mut operator = options.operator.as_ref().map(|key| Outlet::new(&session, key)).transpose()?;
    let (sender, actions) = channel();
    let decoder = if options.is_ros { Decoder::Float32MultiArray { len: 2 } } else { Decoder::F32 { len: 2 } };
    let encoder = if options.is_ros { Encoder::Float32MultiArray } else { Encoder::F32 };
    let take = move |bytes: &[u8]| {
        let mut action = [0.0; 2];
        match decoder.decode(bytes, &mut action) {
            Ok(()) => _ = sender.send((Instant::now(), V { x: action[0], y: action[1] })),
            Err(refusal) => eprintln!("simulator: an action is refused: {}", refusal.message),
        }
    };
    let subscriber = session.declare_subscriber(options.action.as_str());
    let subscriber = subscriber.callback(move |sample| take(&sample.payload().to_bytes())).wait().map_err(failed)?;

    let (mut robot, mut losses) = (Robot::new(), Noise::new(2, 0));
    let mut answers = Histogram::new_with_bounds(1, 60_000_000, 3).expect("these are bounds");
    let (began, mut due) = (Instant::now(), Instant::now());
    while began.elapsed().as_secs_f64() < options.seconds && robot.score.reached < options.until_reached {
        if let Some(operator) = &mut operator {
            operator.put(Vec::new()).map_err(failed)?;
        }
        let asked = Instant::now();
        let is_lost = losses.uniform() < options.drop;
        match is_lost {
            true => outlet.skip(),
            false => outlet.put(encoder.encode(&robot.state.observation(), SystemTime::now())).map_err(failed)?,
        }
        robot.score.observations += 1;
        due = (due + options.period).max(asked);
        let answered = listen(&actions, due, &mut robot);
        if let Some(answered) = answered.filter(|_| !is_lost) {
            answers.saturating_record(answered.saturating_duration_since(asked).as_micros() as u64);
        }
    }
    subscriber.undeclare().wait().map_err(failed)?;
    session.close().wait().map_err(failed)?;
    let Score { episodes, reached, observations, actions } = robot.score;
    println!("{episodes} episodes, {reached} reached the goal; {observations} observations, {actions} actions");
    println!("from publishing an observation to the next action's arrival: {}", Times::of(&answers));
    Ok(())
}

/// Carries out the last action that comes by then; when the first came.
fn listen(actions: &Receiver<(Instant, V)>, until: Instant, robot: &mut Robot) -> Option<Instant> {
    let (mut first, mut last) = (None, None);
    while let Ok((at, action)) = actions.recv_timeout(until.saturating_duration_since(Instant::now())) {
        first = first.or(Some(at));
        last = Some(action);
    }
    if let Some(action) = last {
        robot.carry_out(action);
    }
    first
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulator: {message}");
            ExitCode::FAILURE
        }
    }
}
