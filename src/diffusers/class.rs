//! The classes by name.

use crate::config::SchedulerConfig;
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ddim,
    Ddpm,
    Pndm,
    DpmMultistep,
    DpmSinglestep,
    UniPc,
    Deis,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
    Dpm2,
    EdmEuler,
    EdmDpmMultistep,
    Consistency,
    FlowEuler,
    FlowHeun,
    FlowLcm,
    RectifiedFlow,
    Lcm,
    Tcd,
    DdimInverse,
    DpmMultistepInverse,
    Ipndm,
    Dpm2Ancestral,
    CogDdim,
    CogDpm,
    SaSolver,
    ScoreSdeVe,
    ScoreSdeVp,
}

pub(super) const CLASSES: &[(&str, Class)] = &[
    ("DDIMScheduler", Class::Ddim),
    ("DDPMScheduler", Class::Ddpm),
    ("PNDMScheduler", Class::Pndm),
    ("DPMSolverMultistepScheduler", Class::DpmMultistep),
    ("DPMSolverSinglestepScheduler", Class::DpmSinglestep),
    ("UniPCMultistepScheduler", Class::UniPc),
    ("DEISMultistepScheduler", Class::Deis),
    ("EulerDiscreteScheduler", Class::Euler),
    ("EulerAncestralDiscreteScheduler", Class::EulerAncestral),
    ("HeunDiscreteScheduler", Class::Heun),
    ("LMSDiscreteScheduler", Class::Lms),
    ("KDPM2DiscreteScheduler", Class::Dpm2),
    ("EDMEulerScheduler", Class::EdmEuler),
    ("EDMDPMSolverMultistepScheduler", Class::EdmDpmMultistep),
    ("CMStochasticIterativeScheduler", Class::Consistency),
    ("FlowMatchEulerDiscreteScheduler", Class::FlowEuler),
    ("FlowMatchHeunDiscreteScheduler", Class::FlowHeun),
    ("FlowMatchLCMScheduler", Class::FlowLcm),
    ("RectifiedFlow", Class::RectifiedFlow),
    ("DDIMParallelScheduler", Class::Ddim),
    ("DDPMParallelScheduler", Class::Ddpm),
    ("LCMScheduler", Class::Lcm),
    ("TCDScheduler", Class::Tcd),
    ("DDIMInverseScheduler", Class::DdimInverse),
    ("DPMSolverMultistepInverseScheduler", Class::DpmMultistepInverse),
    ("IPNDMScheduler", Class::Ipndm),
    ("KDPM2AncestralDiscreteScheduler", Class::Dpm2Ancestral),
    ("CogVideoXDDIMScheduler", Class::CogDdim),
    ("CogVideoXDPMScheduler", Class::CogDpm),
    ("SASolverScheduler", Class::SaSolver),
    ("ScoreSdeVeScheduler", Class::ScoreSdeVe),
    ("ScoreSdeVpScheduler", Class::ScoreSdeVp),
];

pub(super) fn class(config: &SchedulerConfig) -> Result<Option<Class>> {
    let Some(name) = &config.class.class_name else { return Ok(None) };
    match CLASSES.iter().find(|(known, _)| known == name) {
        Some((_, class)) => Ok(Some(*class)),
        None => Err(Error::invalid(format!("the scheduler class {name} is not supported"))),
    }
}
