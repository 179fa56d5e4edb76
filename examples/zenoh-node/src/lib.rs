//! A diffusion policy as a node in a Zenoh network: it subscribes to observations and publishes actions.
//!
//! ```text
//! Zenoh's threads              edgegen-control                  edgegen-reporter
//! message ─→ topic (decoded) ─→ control: act, or stop ─→ steps ─→ reporter ─→ action, heartbeat, status
//!                                  ↑    ↓
//!                               edgegen-policy (plans)
//! ```
//! No arrow into or out of the control loop waits: observations go by triple buffers, steps by queues without locks.
//! `docs/robots.md` of the repository says how to use it.

pub mod attachment;
pub mod config;
pub mod control;
pub mod message;
pub mod node;
pub mod reporter;
pub mod status;
pub mod topic;
