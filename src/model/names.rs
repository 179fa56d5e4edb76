//! What inputs and outputs of networks are commonly called.

use super::role::Role;
use super::time::TimeAs;

/// What the name of a network without an input of a role is given as: `--input time=none`.
pub(super) const NONE: &str = "none";

/// Names that exporters give an input of this role, the most common first.
fn of_role(role: Role) -> &'static [&'static str] {
    match role {
        Role::Sample => &[
            "sample",
            "x",
            "x_t",
            "xt",
            "noisy",
            "noisy_sample",
            "noisy_action",
            "input",
            "latent",
            "hidden_states",
            "latents",
            "latent_sample",
            "latent_model_input",
            "model_input",
            "z_t",
            "zt",
            "x_noisy",
            "noised",
        ],
        Role::Time => &[
            "timestep",
            "timesteps",
            "t",
            "time",
            "sigma",
            "step",
            "sigmas",
            "time_step",
            "time_steps",
            "diffusion_step",
            "diffusion_steps",
            "diffusion_timestep",
            "noise_step",
            "noise_labels",
            "c_noise",
        ],
        Role::Next => &["t_next", "next_t", "timestep_next", "next_timestep", "next_time", "time_next"],
        Role::Class => &[
            "class_labels",
            "class_label",
            "class",
            "label",
            "labels",
            "y",
            "class_id",
            "class_ids",
            "classes",
            "one_hot",
            "onehot",
            "class_onehot",
            "class_one_hot",
        ],
        Role::Condition => &["encoder_hidden_states", "global_cond", "cond", "condition"],
    }
}

/// How early in the list of its role's names an input's name is, if it is there.
pub(super) fn rank(name: &str, role: Role) -> Option<usize> {
    if let Some(rank) = of_role(role).iter().position(|known| name.eq_ignore_ascii_case(known)) {
        return Some(rank);
    }
    // last, as one of these may stand beside a time: the level of the noise in a second picture
    (role == Role::Time && meaning(name) != Meaning::Any).then(|| of_role(role).len())
}

/// The words of a name, in small letters: what is between other characters than letters and digits, and where small letters end.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What the name of an input of floats says of the time that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is a time as any other.
    Any,
    /// This and nothing else.
    Plain(TimeAs),
    /// A number of the noise that is no training step, and goes by several definitions.
    Noise,
}

/// What the name of an input of floats says of the time that it takes.
pub(super) fn meaning(name: &str) -> Meaning {
    const PLAIN: &[(&[&str], TimeAs)] = &[
        (&["alphabar", "alphabars", "alphascumprod", "alphacumprod"], TimeAs::AlphaBar),
        (&["sqrtalphabar", "sqrtalphabars", "sqrtalphascumprod", "sqrtalphacumprod"], TimeAs::Gamma),
        (&["sqrtoneminusalphabar", "sqrtoneminusalphascumprod"], TimeAs::Sigma),
        (&["logsnr", "logsnrs"], TimeAs::LogSnr),
    ];
    const NOISE: &[&str] = &[
        "sigma", "sigmas", "gamma", "gammas", "noise", "lambda", "lambdas", "lmbda", "snr", "alpha", "alphas", "beta",
        "betas", "std", "variance", "logvar",
    ];
    let mut words = words(name);
    if words.last().is_some_and(|word| word == "t") && words.len() > 1 {
        words.pop();
    }
    let joined = words.concat();
    let plain = PLAIN.iter().find(|(names, _)| names.contains(&joined.as_str()));
    match plain {
        Some((_, time)) => Meaning::Plain(*time),
        None if words.iter().any(|word| NOISE.contains(&word.as_str())) => Meaning::Noise,
        None => Meaning::Any,
    }
}

fn says(name: &str, known: &[&str]) -> bool {
    words(name).iter().any(|word| known.contains(&word.as_str()))
}

/// Whether a name says that it is of the noisy sample.
pub(super) fn is_noisy(name: &str) -> bool {
    says(name, &["noisy", "noised", "noise", "xt", "zt", "latent", "latents", "sample", "samples", "x"])
}

/// Whether a name says that it is of what a sample is conditioned on.
pub(super) fn is_conditional(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "cond",
        "condition",
        "conditions",
        "conditioning",
        "control",
        "mask",
        "masked",
        "ref",
        "reference",
        "context",
        "guide",
        "guidance",
        "hint",
        "low",
        "lr",
        "lowres",
        "source",
        "src",
        "clean",
        "known",
        "obs",
        "observation",
        "state",
        "states",
        "prompt",
        "text",
        "encoder",
        "embed",
        "embeds",
        "embedding",
        "embeddings",
        "emb",
        "depth",
        "pose",
        "class",
    ];
    says(name, WORDS)
}

/// Whether a name says that it is of a network's prediction.
pub(super) fn is_prediction(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "sample",
        "samples",
        "out",
        "output",
        "prediction",
        "pred",
        "eps",
        "epsilon",
        "velocity",
        "v",
        "denoised",
        "noise",
        "x0",
        "score",
        "result",
        "model",
    ];
    says(name, WORDS) && !is_beside_a_prediction(name)
}

/// Whether a name says that it is of something else that a network gives.
pub(super) fn is_beside_a_prediction(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "variance",
        "var",
        "logvar",
        "sigma",
        "std",
        "uncertainty",
        "mask",
        "hidden",
        "feature",
        "features",
        "attention",
        "attn",
        "aux",
        "cache",
        "mid",
        "residual",
        "loss",
        "embedding",
        "emb",
        "interp",
        "frac",
        "confidence",
        "weight",
        "weights",
        "state",
        "states",
    ];
    says(name, WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_their_words() {
        assert_eq!(words("noisyImage_t2"), ["noisy", "image", "t2"]);
        assert_eq!(words("onnx::Conv_0"), ["onnx", "conv", "0"]);
        assert!(is_noisy("noisy_image") && !is_noisy("cond_image") && is_conditional("cond_image"));
        assert!(is_prediction("sample_out") && !is_prediction("variance") && !is_prediction("sample_variance"));
        assert_eq!((rank("T", Role::Time), rank("timestep", Role::Time)), (Some(2), Some(0)));
    }

    #[test]
    fn names_that_say_what_they_are_are_understood_and_others_asked_about() {
        for name in ["t", "timestep", "time", "timesteps", "onnx::Mul_1", "step"] {
            assert_eq!(meaning(name), Meaning::Any, "{name}");
        }
        for (name, time) in [
            ("log_snr", TimeAs::LogSnr),
            ("logSNR_t", TimeAs::LogSnr),
            ("alpha_bar", TimeAs::AlphaBar),
            ("alphas_cumprod", TimeAs::AlphaBar),
            ("sqrt_alpha_bar", TimeAs::Gamma),
        ] {
            assert_eq!(meaning(name), Meaning::Plain(time), "{name}");
        }
        for name in ["gammas", "noise_level", "sigma", "sigmas", "lambda_t", "snr", "alpha", "noise_std"] {
            assert_eq!(meaning(name), Meaning::Noise, "{name}");
        }
    }
}
