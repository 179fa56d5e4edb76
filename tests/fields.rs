//! Every field of every scheduler class of diffusers is read, or cannot matter, or is refused: held against the classes'
//! signatures, which `tools/fixtures/diffusers_signatures.py` writes down.

use edgegen::config::{CLASS_FIELDS, ClassFields, REFUSED_CLASSES, SchedulerConfig, Threshold};
use edgegen::schedule::{Grid, Schedule};
use edgegen::solver::{Prediction, Program, Solver};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

type Signatures = BTreeMap<String, BTreeMap<String, Value>>;

fn signatures() -> Signatures {
    serde_json::from_str(include_str!("fixtures/diffusers/signatures.json")).unwrap()
}

/// Our own class is not one of diffusers'.
fn of_diffusers() -> impl Iterator<Item = &'static ClassFields> {
    CLASS_FIELDS.iter().filter(|fields| fields.class != "RectifiedFlow")
}

#[test]
fn every_field_of_a_class_is_in_one_list() {
    let signatures = signatures();
    for fields in of_diffusers() {
        let signature: BTreeSet<&str> = signatures[fields.class].keys().map(String::as_str).collect();
        let listed: Vec<&str> = fields
            .read()
            .chain(fields.inert.iter().map(|(f, _)| *f))
            .chain(fields.refused.iter().map(|(f, _)| *f))
            .collect();
        let unique: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(listed.len(), unique.len(), "{} lists a field twice", fields.class);
        assert_eq!(unique, signature, "{}", fields.class);
    }
}

#[test]
fn every_class_of_diffusers_runs_or_is_refused_with_a_reason() {
    for class in signatures().keys() {
        let runs = ClassFields::of(class).is_some();
        let refused = REFUSED_CLASSES.iter().any(|(name, _)| name == class);
        assert!(runs != refused, "{class} runs: {runs}, and is refused: {refused}");
        let read = SchedulerConfig::from_json(&json!({ "_class_name": class }).to_string());
        assert_eq!(read.is_ok(), runs, "{class}: {read:?}");
        if let Err(error) = read {
            assert!(error.to_string().contains(&format!("the scheduler class {class} is not supported: ")), "{error}");
        }
    }
}

/// The documentation lists every class, with the reason of each that is refused.
#[test]
fn every_class_is_documented() {
    let text = include_str!("../docs/samplers.md");
    for class in signatures().keys() {
        let named = format!("`{class}`");
        match REFUSED_CLASSES.iter().find(|(name, _)| name == class) {
            Some((_, why)) => {
                let row = text.lines().find(|line| line.starts_with('|') && line.contains(&named));
                let row = row.unwrap_or_else(|| panic!("no row of docs/samplers.md says why {class} is refused"));
                assert!(row.ends_with(&format!("| {why} |")), "{row} does not say: {why}");
            }
            None => assert!(text.contains(&named), "{class} is not in docs/samplers.md"),
        }
    }
}

/// What a configuration makes of a run: all that the numbers of a sample depend on beside the network.
#[derive(Debug, PartialEq)]
struct Run {
    /// As text, in which a clean level's time, which is no number, is like itself.
    program: String,
    threshold: Threshold,
}

fn run(config: &Map<String, Value>) -> Result<Run, String> {
    let text = Value::Object(config.clone()).to_string();
    let config = SchedulerConfig::from_json(&text).map_err(|e| e.to_string())?.for_samples(&[4, 96, 64]);
    let of = || {
        let schedule = Schedule::from_config(&config)?;
        let prediction = Prediction { kind: config.prediction(), threshold: config.threshold() };
        let grid = Grid::of_scheduler(&config, &schedule, 6)?;
        Solver::of_scheduler(&config)?.expect("a class").compile(&grid, &schedule, prediction)
    };
    let program: Program = of().map_err(|e| e.to_string())?;
    Ok(Run { program: format!("{program:?}"), threshold: config.threshold() })
}

/// For each field a value that changes what a class does, with the fields without which it would change nothing.
fn alternative(class: &str, field: &str) -> (Value, Value) {
    let flow = json!({"use_flow_sigmas": true, "prediction_type": "flow_prediction"});
    let is_flow = class.starts_with("FlowMatch");
    match field {
        "num_train_timesteps" => (json!(200), json!({})),
        "beta_schedule" => (json!("squaredcos_cap_v2"), json!({})),
        "beta_start" => (json!(0.002), json!({})),
        "beta_end" => (json!(0.03), json!({})),
        "trained_betas" => (json!(vec![0.01; 1000]), json!({})),
        "prediction_type" => (json!("v_prediction"), json!({})),
        "clip_sample" if ["DDIM", "DDPM"].iter().any(|c| class.starts_with(c)) => (json!(false), json!({})),
        "clip_sample" => (json!(true), json!({})),
        "clip_sample_range" => (json!(0.5), json!({"clip_sample": true})),
        "thresholding" => (json!(true), json!({})),
        "dynamic_thresholding_ratio" => (json!(0.8), json!({"thresholding": true})),
        "sample_max_value" => (json!(2.0), json!({"thresholding": true})),
        "timestep_spacing" => (json!("trailing"), json!({})),
        "steps_offset" => (json!(3), json!({"timestep_spacing": "leading"})),
        "rescale_betas_zero_snr" => {
            (json!(true), json!({"prediction_type": "v_prediction", "timestep_spacing": "trailing"}))
        }
        "set_alpha_to_one" if class == "PNDMScheduler" => (json!(true), json!({})),
        "set_alpha_to_one" => (json!(false), json!({})),
        "variance_type" => (json!("fixed_large"), json!({})),
        "skip_prk_steps" => (json!(true), json!({})),
        "solver_order" => (json!(1), json!({})),
        "solver_type" if class.starts_with("UniPC") => (json!("bh1"), json!({})),
        "solver_type" => (json!("heun"), json!({})),
        "predictor_order" | "corrector_order" => (json!(1), json!({})),
        "snr" | "sampling_eps" => (json!(0.05), json!({})),
        "correct_steps" => (json!(3), json!({})),
        "beta_min" => (json!(0.3), json!({})),
        "beta_max" => (json!(15.0), json!({})),
        "sigma_min" | "sigma_max" if class.starts_with("ScoreSde") => (json!(0.5), json!({})),
        "lower_order_final" if class == "SASolverScheduler" => (json!(false), json!({})),
        "algorithm_type" if class == "SASolverScheduler" => (json!("noise_prediction"), json!({})),
        "algorithm_type" => (json!("dpmsolver"), json!({"final_sigmas_type": "sigma_min"})),
        "lower_order_final" if class == "DPMSolverSinglestepScheduler" => {
            (json!(true), json!({"final_sigmas_type": "sigma_min"}))
        }
        "lower_order_final" => (json!(false), json!({"final_sigmas_type": "sigma_min", "solver_order": 3})),
        "euler_at_final" => (json!(true), json!({"lower_order_final": false, "final_sigmas_type": "sigma_min"})),
        "use_lu_lambdas" | "use_karras_sigmas" | "use_exponential_sigmas" | "use_beta_sigmas" => {
            (json!(true), json!({}))
        }
        "use_flow_sigmas" => (json!(true), json!({"prediction_type": "sample"})),
        "flow_shift" => (json!(3.0), flow),
        "use_dynamic_shifting" if is_flow => (json!(true), json!({})),
        "use_dynamic_shifting" => (json!(true), flow),
        "time_shift_type" if is_flow => (json!("linear"), json!({"use_dynamic_shifting": true})),
        // the others know one
        "time_shift_type" if class.starts_with("UniPC") => {
            let mut with = flow;
            with["use_dynamic_shifting"] = json!(true);
            (json!("linear"), with)
        }
        "time_shift_type" => (json!("linear"), json!({})),
        "shift" => (json!(3.0), json!({})),
        "base_shift" | "max_shift" => (json!(0.9), json!({"use_dynamic_shifting": true})),
        "base_image_seq_len" => (json!(100), json!({"use_dynamic_shifting": true})),
        "max_image_seq_len" => (json!(8000), json!({"use_dynamic_shifting": true})),
        "shift_terminal" if is_flow => (json!(0.1), json!({})),
        "shift_terminal" => (json!(0.1), flow),
        "invert_sigmas" | "stochastic_sampling" => (json!(true), json!({})),
        "final_sigmas_type" => (json!("sigma_min"), json!({})),
        "lambda_min_clipped" => (json!(-1.0), json!({})),
        "predict_x0" => (json!(false), json!({})),
        "disable_corrector" => (json!([0]), json!({})),
        "interpolation_type" => (json!("log_linear"), json!({})),
        "sigma_min" => (json!(0.05), json!({"use_karras_sigmas": true})),
        "sigma_max" => (json!(20.0), json!({"use_karras_sigmas": true})),
        "timestep_type" => (json!("continuous"), json!({"prediction_type": "v_prediction"})),
        "sigma_schedule" => (json!("exponential"), json!({})),
        "rho" => (json!(5.0), json!({})),
        "clip_denoised" => (json!(false), json!({})),
        "original_inference_steps" => (json!(20), json!({})),
        "timestep_scaling" => (json!(0.001), json!({})),
        "snr_shift_scale" => (json!(1.0), json!({})),
        other => panic!("there is no other value for {other}"),
    }
}

/// A field that is read changes what is run, or is refused with a line that names it.
#[test]
fn every_field_that_is_read_changes_the_run() {
    let mut changed = 0;
    for fields in of_diffusers() {
        for field in fields.read() {
            // in the network's scalings (src/network/preconditioned.rs), which have tests of their own
            let scaling = field == "sigma_data" || (field == "prediction_type" && fields.class.starts_with("EDM"));
            if scaling {
                continue;
            }
            let (value, with) = alternative(fields.class, field);
            let mut config: Map<String, Value> = with.as_object().unwrap().clone();
            config.retain(|name, _| fields.read().any(|f| f == name));
            config.insert("_class_name".into(), json!(fields.class));
            let plain = run(&config).unwrap_or_else(|e| panic!("{} with {config:?}: {e}", fields.class));
            config.insert(field.into(), value.clone());
            match run(&config) {
                Ok(other) => assert_ne!(plain, other, "{}: {field} = {value} changes nothing", fields.class),
                Err(error) => assert!(error.contains(field), "{}: {field} = {value}: {error}", fields.class),
            }
            changed += 1;
        }
    }
    assert!(changed > 200, "{changed}");
}

/// What cannot matter does not, and what is refused is.
#[test]
fn the_other_fields_change_nothing_or_are_refused_by_name() {
    for fields in of_diffusers() {
        let with = |field: &str, value: Value| {
            let mut config = Map::from_iter([("_class_name".to_string(), json!(fields.class))]);
            config.insert(field.into(), value);
            run(&config)
        };
        let plain = with("_class_name", json!(fields.class)).unwrap();
        for (field, _) in fields.inert {
            for value in [json!(true), json!(7), json!("learned_range")] {
                assert_eq!(with(field, value.clone()).unwrap(), plain, "{}: {field} = {value}", fields.class);
            }
        }
        for (field, _) in fields.refused {
            let error = with(field, json!([1, 2])).unwrap_err();
            assert!(error.contains(&format!("{field} is [1,2]: ")), "{}: {error}", fields.class);
            let true_error = with(field, json!(true)).unwrap_err();
            assert!(true_error.contains(field), "{true_error}");
        }
    }
}
