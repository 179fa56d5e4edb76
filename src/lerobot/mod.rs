//! LeRobot's policies, as `save_pretrained` writes them: how they sample, and the statistics of what they see and do.

mod processor;
mod scheduler;

pub(crate) use processor::normalization;
pub(crate) use scheduler::{Control, scheduler_config};
