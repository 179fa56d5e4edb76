//! `edgegen-zenoh-node CONFIG.yaml`: a diffusion policy as a node in a Zenoh network.

use edgegen_zenoh_node::config::Config;
use edgegen_zenoh_node::node;
use edgegen_zenoh_node::topic::say;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Zenoh's own log, where RUST_LOG asks for it
    zenoh::try_init_log_from_env();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [file] = arguments.as_slice() else {
        say(&"give one configuration: edgegen-zenoh-node CONFIG.yaml; docs/robots.md says what is in it");
        return ExitCode::from(2);
    };
    match Config::open(Path::new(file)).and_then(|config| node::run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}
