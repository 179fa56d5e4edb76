//! Which fields each class of diffusers' schedulers has, and what becomes of them here.
//!
//! Every field of a class is in one of three lists: it is read; or it cannot matter, for the reason given; or it is
//! refused, unless it has the value that changes nothing. `tests/fields.rs` holds the lists against the classes'
//! signatures.

use serde_json::{Map, Value, json};

/// A class and its fields.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClassFields {
    /// The class.
    pub class: &'static str,
    /// The fields that are read, in groups that several classes share.
    pub read: &'static [&'static [&'static str]],
    /// The fields that cannot matter, and why.
    pub inert: &'static [(&'static str, &'static str)],
    /// The fields that are refused, and why.
    pub refused: &'static [(&'static str, &'static str)],
}

const fn class(class: &'static str, read: &'static [&'static [&'static str]]) -> ClassFields {
    ClassFields { class, read, inert: &[], refused: &[] }
}

/// A schedule of β, and what the network predicts.
const BETAS: &[&str] =
    &["num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type"];
const SPACING: &[&str] = &["timestep_spacing", "steps_offset"];
const CLIP: &[&str] = &["clip_sample", "clip_sample_range"];
const THRESHOLD: &[&str] = &["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
const ZERO_SNR: &[&str] = &["rescale_betas_zero_snr"];
const SPACED: &[&str] = &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
const FLOW_SIGMAS: &[&str] = &["use_flow_sigmas", "flow_shift"];
const DYNAMIC: &[&str] = &["use_dynamic_shifting", "time_shift_type"];
const SOLVER: &[&str] = &["solver_order", "solver_type", "algorithm_type", "lower_order_final"];
const EDM: &[&str] =
    &["sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", "prediction_type", "final_sigmas_type"];
const FLOW_MATCH: &[&str] = &[
    "num_train_timesteps",
    "shift",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "invert_sigmas",
    "shift_terminal",
];

/// Of networks that give twice the channels.
const OWN_VARIANCE: (&str, &str) =
    ("variance_type", "this class leaves out the second half of a network's output, and so does every solver here");
const OWN_STEPS: &str = "this class places its steps by original_inference_steps alone";

/// Every class that runs.
pub const CLASS_FIELDS: &[ClassFields] = &[
    class("DDIMScheduler", &[BETAS, CLIP, THRESHOLD, SPACING, ZERO_SNR, &["set_alpha_to_one"]]),
    class("DDIMParallelScheduler", &[BETAS, CLIP, THRESHOLD, SPACING, ZERO_SNR, &["set_alpha_to_one"]]),
    class("DDPMScheduler", &[BETAS, CLIP, THRESHOLD, SPACING, ZERO_SNR, &["variance_type"]]),
    class("DDPMParallelScheduler", &[BETAS, CLIP, THRESHOLD, SPACING, ZERO_SNR, &["variance_type"]]),
    class("PNDMScheduler", &[BETAS, SPACING, &["set_alpha_to_one", "skip_prk_steps"]]),
    ClassFields {
        inert: &[OWN_VARIANCE],
        ..class(
            "DPMSolverMultistepScheduler",
            &[
                BETAS,
                THRESHOLD,
                SPACING,
                ZERO_SNR,
                SPACED,
                FLOW_SIGMAS,
                DYNAMIC,
                SOLVER,
                &["euler_at_final", "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped"],
            ],
        )
    },
    ClassFields {
        inert: &[OWN_VARIANCE],
        ..class(
            "DPMSolverSinglestepScheduler",
            &[BETAS, THRESHOLD, SPACED, FLOW_SIGMAS, DYNAMIC, SOLVER, &["final_sigmas_type", "lambda_min_clipped"]],
        )
    },
    ClassFields {
        refused: &[("solver_p", "a second scheduler as the predictor is not supported")],
        ..class(
            "UniPCMultistepScheduler",
            &[
                BETAS,
                THRESHOLD,
                SPACING,
                ZERO_SNR,
                SPACED,
                FLOW_SIGMAS,
                DYNAMIC,
                &["solver_order", "solver_type", "lower_order_final", "predict_x0", "disable_corrector"],
                &["final_sigmas_type", "sigma_min", "sigma_max", "shift_terminal"],
            ],
        )
    },
    ClassFields {
        inert: &[
            ("algorithm_type", "this class has one algorithm, and takes the names of others for it"),
            ("solver_type", "this class has one solver, and takes the names of others for it"),
        ],
        ..class(
            "DEISMultistepScheduler",
            &[BETAS, THRESHOLD, SPACING, SPACED, FLOW_SIGMAS, DYNAMIC, &["solver_order", "lower_order_final"]],
        )
    },
    class(
        "EulerDiscreteScheduler",
        &[
            BETAS,
            SPACING,
            ZERO_SNR,
            SPACED,
            &["interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type"],
        ],
    ),
    class("EulerAncestralDiscreteScheduler", &[BETAS, SPACING, ZERO_SNR]),
    class("HeunDiscreteScheduler", &[BETAS, CLIP, SPACING, SPACED]),
    class("LMSDiscreteScheduler", &[BETAS, SPACING, SPACED]),
    class("KDPM2DiscreteScheduler", &[BETAS, SPACING, SPACED]),
    ClassFields {
        inert: &[(
            "num_train_timesteps",
            "the steps lie between sigma_max and sigma_min, whatever their number in training",
        )],
        ..class("EDMEulerScheduler", &[EDM])
    },
    ClassFields {
        inert: &[(
            "num_train_timesteps",
            "the steps lie between sigma_max and sigma_min, whatever their number in training",
        )],
        ..class("EDMDPMSolverMultistepScheduler", &[EDM, THRESHOLD, SOLVER, &["euler_at_final"]])
    },
    ClassFields {
        refused: &[("s_noise", "noise of another size than the steps' is not supported: give 1")],
        ..class(
            "CMStochasticIterativeScheduler",
            &[&["num_train_timesteps", "sigma_min", "sigma_max", "sigma_data", "rho", "clip_denoised"]],
        )
    },
    class("FlowMatchEulerDiscreteScheduler", &[FLOW_MATCH, DYNAMIC, SPACED, &["stochastic_sampling"]]),
    class("FlowMatchHeunDiscreteScheduler", &[&["num_train_timesteps", "shift"]]),
    ClassFields {
        inert: &[("upscale_mode", "samples are not enlarged on the way")],
        refused: &[("scale_factors", "samples that grow on the way are not supported")],
        ..class("FlowMatchLCMScheduler", &[FLOW_MATCH, DYNAMIC, SPACED])
    },
    ClassFields {
        inert: &[
            ("timestep_spacing", OWN_STEPS),
            ("steps_offset", OWN_STEPS),
            ("set_alpha_to_one", "no step of this class leads below training step 0"),
        ],
        ..class("LCMScheduler", &[BETAS, CLIP, THRESHOLD, ZERO_SNR, &["original_inference_steps", "timestep_scaling"]])
    },
    ClassFields {
        inert: &[
            ("timestep_spacing", OWN_STEPS),
            ("steps_offset", OWN_STEPS),
            ("set_alpha_to_one", "no step of this class leads below training step 0"),
            ("timestep_scaling", "this class has no boundary condition to scale times for"),
            ("clip_sample", "this class does not clip"),
            ("clip_sample_range", "this class does not clip"),
            ("thresholding", "this class does not threshold"),
            ("dynamic_thresholding_ratio", "this class does not threshold"),
            ("sample_max_value", "this class does not threshold"),
        ],
        ..class("TCDScheduler", &[BETAS, ZERO_SNR, &["original_inference_steps"]])
    },
    class("DDIMInverseScheduler", &[BETAS, CLIP, SPACING, ZERO_SNR, &["set_alpha_to_one"]]),
    ClassFields {
        inert: &[OWN_VARIANCE, ("flow_shift", "it is of rectified flows")],
        refused: &[("use_flow_sigmas", "the steps of this class do not rise to noise on a rectified flow")],
        ..class(
            "DPMSolverMultistepInverseScheduler",
            &[BETAS, THRESHOLD, SPACING, SPACED, SOLVER, &["euler_at_final", "lambda_min_clipped"]],
        )
    },
    ClassFields {
        inert: &[("num_train_timesteps", "the times of this class run from 1 to 0, whatever their number in training")],
        refused: &[("trained_betas", "this class takes them for the noise of each step of a run")],
        ..class("IPNDMScheduler", &[])
    },
    class("KDPM2AncestralDiscreteScheduler", &[BETAS, SPACING, SPACED]),
    ClassFields {
        inert: &[OWN_VARIANCE],
        refused: &[(
            "tau_func",
            "a function cannot be read from a file: leave it out for diffusers' own, or name the sampler sa-solver",
        )],
        ..class(
            "SASolverScheduler",
            &[
                BETAS,
                THRESHOLD,
                SPACING,
                SPACED,
                FLOW_SIGMAS,
                &["predictor_order", "corrector_order", "algorithm_type", "lower_order_final", "lambda_min_clipped"],
            ],
        )
    },
    ClassFields {
        inert: &[(
            "num_train_timesteps",
            "the steps lie between sigma_max and sigma_min, whatever their number in training",
        )],
        ..class("ScoreSdeVeScheduler", &[&["snr", "correct_steps", "sigma_min", "sigma_max", "sampling_eps"]])
    },
    ClassFields {
        inert: &[(
            "num_train_timesteps",
            "the times of this class run from 1 to sampling_eps, whatever their number in training",
        )],
        ..class("ScoreSdeVpScheduler", &[&["beta_min", "beta_max", "sampling_eps"]])
    },
    ClassFields {
        inert: &[
            ("clip_sample", "this class does not clip"),
            ("clip_sample_range", "this class does not clip"),
            ("sample_max_value", "this class does not threshold"),
        ],
        ..class("CogVideoXDDIMScheduler", &[BETAS, SPACING, ZERO_SNR, &["set_alpha_to_one", "snr_shift_scale"]])
    },
    ClassFields {
        inert: &[
            ("clip_sample", "this class does not clip"),
            ("clip_sample_range", "this class does not clip"),
            ("sample_max_value", "this class does not threshold"),
        ],
        ..class("CogVideoXDPMScheduler", &[BETAS, SPACING, ZERO_SNR, &["set_alpha_to_one", "snr_shift_scale"]])
    },
    // our own: a rectified flow as LeRobot's policies follow it
    class("RectifiedFlow", &[&["num_train_timesteps", "prediction_type", "time_scale", "integration_method"]]),
];

/// Classes that are refused, and why.
pub const REFUSED_CLASSES: &[(&str, &str)] = &[
    ("AmusedScheduler", "it is for tokens, not numbers"),
    ("BlockRefinementScheduler", "it is for tokens, not numbers"),
    ("CosineDPMSolverMultistepScheduler", "its noise comes from a Brownian tree"),
    ("DDPMWuerstchenScheduler", "its times are ratios that each step is given anew"),
    ("DPMSolverSDEScheduler", "its noise comes from a Brownian tree"),
    ("DiscreteDDIMScheduler", "it is for tokens, not numbers"),
    ("EntropyBoundScheduler", "it is for tokens, not numbers"),
    ("FlowMapEulerDiscreteScheduler", "its network takes two times"),
    ("HeliosDMDScheduler", "its samples grow on the way"),
    ("HeliosScheduler", "its samples grow on the way"),
    ("KarrasVeScheduler", "its network is of another variance-exploding form than EDM's"),
    ("LTXEulerAncestralRFScheduler", "the noise that it adds to a flow is of a form of its own"),
    ("MiniMaxH3Scheduler", "its steps are of a form of its own"),
    ("PiflowScheduler", "its network gives a policy, not a velocity"),
    ("RFD4ProteinaScheduler", "it is for proteins"),
    ("RePaintScheduler", "give DDPMScheduler or DDIMScheduler, and --init with --mask and --resample"),
    ("SCMScheduler", "its network is of trigonometric flow"),
    ("UnCLIPScheduler", "it clips and rounds in a way of its own"),
    ("VQDiffusionScheduler", "it is for tokens, not numbers"),
];

impl ClassFields {
    /// The lists of a class, if it is one that runs.
    pub fn of(class: &str) -> Option<&'static ClassFields> {
        CLASS_FIELDS.iter().find(|fields| fields.class == class)
    }

    /// The fields that are read.
    pub fn read(&self) -> impl Iterator<Item = &'static str> {
        self.read.iter().flat_map(|group| group.iter().copied())
    }

    fn reads(&self, name: &str) -> bool {
        self.read().any(|field| field == name)
    }

    /// Takes out of a configuration what the class does not read, so that nothing else does, and gives what it does not
    /// know, unless that has the value that it would have by default.
    ///
    /// # Errors
    /// When a field is refused.
    pub(super) fn keep(
        &self,
        fields: &mut Map<String, Value>,
        default: impl Fn(&str) -> Option<Value>,
    ) -> Result<Map<String, Value>, String> {
        let denoised = fields.get("prediction_type").is_some_and(|p| p == "denoised");
        let mut unknown = Map::new();
        for name in fields.keys().cloned().collect::<Vec<_>>() {
            if self.reads(&name) || OWN.contains(&name.as_str()) || (denoised && RANGE.contains(&name.as_str())) {
                continue;
            }
            let value = fields.remove(&name).expect("it is one of its keys");
            if let Some((_, why)) = self.refused.iter().find(|(field, _)| *field == name) {
                let harmless = [json!(1.0), json!(1), json!([]), json!(false)].contains(&value);
                if !harmless {
                    return Err(format!("{name} is {value}: {why}"));
                }
            } else if !self.inert.iter().any(|(field, _)| *field == name) && default(&name).as_ref() != Some(&value) {
                unknown.insert(name, value);
            }
        }
        Ok(unknown)
    }
}

/// The fields of every class that are our own.
const OWN: &[&str] = &["_class_name", "tuned_timesteps", "fitted_steps", "num_inference_steps", "mu"];

/// The fields of a network that takes σ, whatever the class.
const RANGE: &[&str] =
    &["sigma_min", "sigma_max", "rho", "timestep_spacing", "prediction_type", "clip_sample", "clip_sample_range"];

/// What is wrong with a class that does not run.
pub(super) fn refusal(class: &str) -> String {
    match REFUSED_CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, why)) => format!("the scheduler class {class} is not supported: {why}"),
        None => format!(
            "the scheduler class {class} is not known: those that run are {}",
            CLASS_FIELDS.iter().map(|fields| fields.class).collect::<Vec<_>>().join(", ")
        ),
    }
}
