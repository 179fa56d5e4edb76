//! The scheduler's configuration, in diffusers' own `scheduler_config.json` format, so that a model
//! exported from there runs with its own file.

mod check;
mod fields;
mod kinds;
mod options;
mod scheduler;
mod settings;

pub use fields::{CLASS_FIELDS, ClassFields, REFUSED_CLASSES};
pub use kinds::{
    AlgorithmType, BetaSchedule, FinalSigmas, Integration, Interpolation, PredictionType, SigmaSchedule, SolverType,
    Spacing, TimeShift, TimestepType,
};
pub use options::ClassOptions;
pub use scheduler::{FittedStep, SchedulerConfig};
pub use settings::{FlowTime, Preconditioning, Sigmas, Threshold};
