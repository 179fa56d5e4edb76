//! Random ONNX graphs, and graphs that each show one rule of the specification, against onnxruntime's results: each must
//! give the same numbers, or be refused in one line. Never other numbers.
//!
//! `tools/fuzz/` makes the fixtures. A graph's tolerance comes with it: 2·10⁻⁵ of the greatest number of the result, which
//! is what a few hundred additions in another order and functions of other approximations come to, and eight times what
//! changing the sample by one in a million does, for graphs that magnify rounding.
//!
//! `EDGEGEN_GRAPHS=FILE.gz cargo test --test random_graphs -- --nocapture` compares another set, such as a longer one.

use edgegen::config::SchedulerConfig;
use edgegen::{Condition, ModelOptions, Network};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A graph, its inputs, and what onnxruntime makes of it.
struct Case {
    name: String,
    model: Vec<u8>,
    t: f32,
    x: Vec<f32>,
    tolerance: f32,
    /// Empty where onnxruntime refuses the graph, or refuses to run it.
    expected: Vec<f32>,
}

fn cases(path: &Path) -> Vec<Case> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let mut rest = bytes.as_slice();
    let mut field = || {
        let (length, after) = rest.split_first_chunk().expect("a field has a length");
        let (data, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = after;
        (data, rest.is_empty())
    };
    let floats = |data: &[u8]| data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
    let mut all = Vec::new();
    loop {
        let [name, model, t, x, tolerance] = std::array::from_fn(|_| field().0);
        let (expected, last) = field();
        all.push(Case {
            name: String::from_utf8(name.into()).unwrap(),
            model: model.into(),
            t: floats(t)[0],
            x: floats(x),
            tolerance: floats(tolerance)[0],
            expected: floats(expected),
        });
        if last {
            return all;
        }
    }
}

/// The result of one call, and whether edgegen's own plan made it; or why there is none.
fn run(case: &Case) -> Result<(Vec<f32>, bool), String> {
    let options = ModelOptions::new().scheduler_config(SchedulerConfig::default()).exact_quantization(true);
    let model = options.read(&case.model).map_err(|e| e.to_string())?;
    let mut out = vec![f32::NAN; case.x.len()];
    let mut network = model.network().map_err(|e| e.to_string())?;
    network.bind(0, &Condition::default()).map_err(|e| e.to_string())?;
    network.predict(&case.x, f64::from(case.t), 0, &mut out).map_err(|e| e.to_string())?;
    Ok((out, model.has_plan()))
}

#[derive(Default)]
struct Tally {
    by_plan: usize,
    by_tract: usize,
    refused: usize,
    reasons: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

fn compare(path: &Path) -> Tally {
    let mut tally = Tally::default();
    for case in cases(path) {
        match run(&case) {
            Err(line) => {
                tally.refused += 1;
                if line.is_empty() || line.contains('\n') {
                    tally.wrong.push(format!("{}: not refused in one line: {line:?}", case.name));
                }
                *tally.reasons.entry(line).or_default() += 1;
            }
            Ok((out, planned)) => {
                *if planned { &mut tally.by_plan } else { &mut tally.by_tract } += 1;
                let engine = if planned { "plan" } else { "tract" };
                if case.expected.is_empty() {
                    tally.wrong.push(format!("{} ({engine}): runs, but is not valid", case.name));
                    continue;
                }
                let far = |(a, b): (&f32, &f32)| {
                    // what is no number may be any such: NaN, or an infinity
                    let same = a == b || !(a.is_finite() || b.is_finite());
                    if same { 0.0 } else { Some((a - b).abs()).filter(|d| !d.is_nan()).unwrap_or(f32::INFINITY) }
                };
                let most = out.iter().zip(&case.expected).map(far).fold(0.0, f32::max);
                if most > case.tolerance || out.len() != case.expected.len() {
                    let (name, tolerance) = (&case.name, case.tolerance);
                    tally.wrong.push(format!("{name} ({engine}): {most:.3e} off, where {tolerance:.1e} is rounding"));
                }
            }
        }
    }
    let Tally { by_plan, by_tract, refused, wrong, .. } = &tally;
    println!("{by_plan} run by the plan, {by_tract} by tract, {refused} refused, {} wrong", wrong.len());
    tally
}

fn fixture(name: &str) -> PathBuf {
    let given = std::env::var_os("EDGEGEN_GRAPHS").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/graphs").join(name))
}

fn check(path: &Path) -> Tally {
    let tally = compare(path);
    if std::env::var_os("EDGEGEN_GRAPHS").is_some() {
        tally.reasons.iter().for_each(|(reason, n)| println!("{n} × {reason}"));
    }
    assert!(tally.wrong.is_empty(), "{}\n{} graphs are wrong", tally.wrong.join("\n"), tally.wrong.len());
    tally
}

#[test]
fn random_graphs_give_the_numbers_of_onnxruntime_or_are_refused() {
    let Tally { by_plan, by_tract, refused, .. } = check(&fixture("random.gz"));
    if std::env::var_os("EDGEGEN_GRAPHS").is_none() {
        // it is no comparison if all are refused
        assert!(by_plan >= 200 && refused < 150, "{by_plan} by the plan, {by_tract} by tract, {refused} refused");
    }
}

#[test]
fn each_rule_of_onnx_holds_or_is_refused() {
    if std::env::var_os("EDGEGEN_GRAPHS").is_none() {
        let Tally { by_plan, by_tract, refused, .. } = check(&fixture("directed.gz"));
        assert!(
            by_plan >= 700 && by_plan + by_tract >= 850,
            "{by_plan} by the plan, {by_tract} by tract, {refused} refused"
        );
    }
}

#[test]
fn what_is_written_out_runs_by_the_plan() {
    if std::env::var_os("EDGEGEN_GRAPHS").is_none() {
        let Tally { by_plan, by_tract, refused, reasons, .. } = check(&fixture("expanded.gz"));
        assert!(by_plan >= 234 && by_tract <= 2 && refused <= 10, "{by_plan}, {by_tract}, {refused}: {reasons:#?}");
    }
}
