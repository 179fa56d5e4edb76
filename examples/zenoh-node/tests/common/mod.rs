//! The node as a process, and what it publishes as seen from the network.

use edgegen_zenoh_node::config::Zenoh;
use edgegen_zenoh_node::message::Decoder;
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use zenoh::qos::CongestionControl;
use zenoh::{Session, Wait};

/// After which a condition has failed: long, since the machine may have much else to do.
const LIMIT: Duration = Duration::from_secs(120);

/// A network of its own on this machine: a router, as ROS 2 has one, that listens to what the node publishes.
pub struct Network {
    pub session: Session,
    endpoint: String,
    folder: PathBuf,
    pub actions: Arc<Mutex<Vec<Vec<f32>>>>,
    statuses: Arc<Mutex<Vec<Value>>>,
    pub heartbeats: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A process that does not outlive the test.
pub struct Process {
    child: Child,
    pub folder: PathBuf,
}

impl Network {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (session, endpoint) = router();
        let (actions, statuses, heartbeats) = (Arc::default(), Arc::default(), Arc::default());
        let network = Network { session, endpoint, folder, actions, statuses, heartbeats };
        let (actions, heartbeats) = (network.actions.clone(), network.heartbeats.clone());
        network.subscribe("robot/heartbeat", move |bytes, _| locked(&heartbeats).push(bytes.to_vec()));
        let statuses = network.statuses.clone();
        network.subscribe("robot/status", move |bytes, _| {
            locked(&statuses).push(serde_json::from_slice(bytes).unwrap());
        });
        network.subscribe("robot/action", move |bytes, _| {
            let mut action = vec![0.0; 2];
            Decoder::F32 { len: 2 }.decode(bytes, &mut action).unwrap();
            locked(&actions).push(action);
        });
        network
    }

    pub fn subscribe(&self, key: &str, take: impl Fn(&[u8], Option<&[u8]>) + Send + Sync + 'static) {
        let subscriber = self.session.declare_subscriber(key.to_string()).callback(move |sample| {
            let attachment = sample.attachment().map(|attachment| attachment.to_bytes());
            take(&sample.payload().to_bytes(), attachment.as_deref());
        });
        subscriber.background().wait().unwrap();
    }

    /// Starts the node by the configuration that most tests have, with lines of it replaced or added.
    pub fn node(&self, changes: &[(&str, &str)]) -> Process {
        self.start(&self.configuration(changes))
    }

    pub fn configuration(&self, changes: &[(&str, &str)]) -> String {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/push.onnx");
        let endpoint = &self.endpoint;
        let mut text = format!(
            "zenoh: {{connect: [{endpoint}], listen: [tcp/127.0.0.1:0]}}
model: {model}
policy: {{sampler: ddim, steps: 2, n_obs_steps: 2, n_action_steps: 1, first_action: 0}}
period_ms: 20
observations:
  global_cond: {{key: robot/state, max_age_ms: 60000}}
action: {{key: robot/action}}
heartbeat: {{key: robot/heartbeat, period_ms: 50}}
status: {{key: robot/status, period_ms: 50}}
"
        );
        for (key, line) in changes {
            let begins = |old: &&str| old.trim_start().starts_with(&format!("{key}:"));
            match text.lines().find(begins).map(str::to_string) {
                Some(old) => text = text.replace(&old, line),
                None => text += &format!("{line}\n"),
            }
        }
        text
    }

    pub fn start(&self, configuration: &str) -> Process {
        let file = self.folder.join("node.yaml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgegen-zenoh-node"));
        Process::start(command.arg(file), &self.folder)
    }

    pub fn simulator(&self, options: &[&str]) -> Process {
        let folder = self.folder.join("simulator");
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
        Process::start(command.args(["--connect", &self.endpoint]).args(options), &folder)
    }

    /// The latest status; null before the first.
    pub fn status(&self) -> Value {
        locked(&self.statuses).last().cloned().unwrap_or_default()
    }

    /// Waits until the status says so.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_until(what, || Some(self.status()).filter(|status| is_so(status)))
    }

    pub fn wait_until<T>(&self, what: &str, find: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(found) = find() {
                return found;
            }
            let told = || std::fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
            let actions = || locked(&self.actions).clone();
            assert!(Instant::now() < until, "not {what}: {}\n{:?}\n{}", self.status(), actions(), told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until so many more actions have come, and returns the last of them.
    pub fn wait_for_actions(&self, count: usize) -> Vec<Vec<f32>> {
        let before = locked(&self.actions).len();
        self.wait_until("more actions", || {
            let actions = locked(&self.actions);
            (actions.len() >= before + count).then(|| actions[before..].to_vec())
        })
    }

    /// Publishes what cannot get lost.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let put = self.session.put(key.to_string(), bytes.to_vec());
        put.congestion_control(CongestionControl::Block).wait().unwrap();
    }

    /// Publishes again and again, until it is dropped.
    pub fn feed(&self, key: &str, bytes: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Feed {
        let publisher = self.session.declare_publisher(key.to_string()).express(true).wait().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            for count in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                publisher.put(bytes(count)).wait().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Feed { is_over, thread: Some(thread) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Ends when it is dropped.
pub struct Feed {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Process {
    fn start(command: &mut Command, folder: &Path) -> Self {
        let file = |name| std::fs::File::create(folder.join(name)).unwrap();
        let command = command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Process { child: command.spawn().unwrap(), folder: folder.to_path_buf() }
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end: {}", self.read("stderr"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote to `stdout` or `stderr`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A router at a port that was free.
fn router() -> (Session, String) {
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("tcp/127.0.0.1:{port}");
        let mut config = Zenoh { listen: vec![endpoint.clone()], ..Zenoh::default() }.to_config().unwrap();
        config.insert_json5("mode", "\"router\"").unwrap();
        // somebody else may have been faster
        if let Ok(session) = zenoh::open(config).wait() {
            return (session, endpoint);
        }
    }
    panic!("no port can be listened at");
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// What the robot sees at a moment, as bytes: it moves a little.
pub fn seen(count: u32) -> Vec<u8> {
    bytes(&[0.1 + 0.001 * (count % 100) as f32, 0.0, 0.6, 0.1])
}
