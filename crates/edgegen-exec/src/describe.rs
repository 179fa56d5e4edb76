//! What a plan is made of, and where its time goes.

use super::plan::{At, Plan, Step, Workspace};
use kernels::arena::View;
use kernels::dense::Map;
use kernels::general::{Rows, Unary};
use kernels::{conv::Method, dense};
use std::time::Instant;

/// A step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// The kernel.
    pub kernel: &'static str,
    /// The sizes that it works on.
    pub sizes: String,
    /// Multiplications with an addition that the step stands for, whatever the kernel makes of them.
    pub multiply_adds: u64,
    /// The median time of one run in milliseconds, where it was measured.
    pub ms: Option<f64>,
}

impl Plan {
    /// The kernels of the steps, in their order.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.steps.iter().map(kernel)
    }

    /// The steps in their order, untimed.
    pub fn describe(&self) -> Vec<StepInfo> {
        let info = |step: &Step| {
            let (sizes, multiply_adds) = sizes(step);
            StepInfo { kernel: kernel(step), sizes, multiply_adds, ms: None }
        };
        self.steps.iter().map(info).collect()
    }

    /// The steps in their order, with the median times of `runs` runs at this place.
    pub fn profile(&self, workspace: &mut Workspace, at: At, runs: usize) -> Vec<StepInfo> {
        let mut out = vec![0.0; at.x.len()];
        let mut times = vec![Vec::with_capacity(runs); self.steps.len()];
        self.run(workspace, at, &mut out);
        for _ in 0..runs {
            for (step, times) in self.steps.iter().zip(&mut times) {
                let start = Instant::now();
                self.step(step, workspace, at, &mut out);
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied()
        };
        self.describe().into_iter().zip(times).map(|(info, t)| StepInfo { ms: median(t), ..info }).collect()
    }

    /// Bytes of weights.
    pub fn weight_bytes(&self) -> usize {
        let bytes = |step: &Step| match step {
            Step::Convolution { packed, .. } => packed.bytes(),
            Step::Convolution8 { packed, .. } => packed.bytes(),
            Step::Matrix { matrix, .. } => matrix.bytes(),
            Step::Rows { table, .. } => 4 * table.len(),
            Step::EachRow { f: Rows::Layer { scale, shift, .. }, .. } => 4 * (scale.len() + shift.len()),
            Step::Attention { mask: Some(mask), .. } => 4 * mask.len(),
            Step::Norm { scale, shift, .. } => 4 * (scale.len() + shift.len()),
            _ => 0,
        };
        self.steps.iter().map(bytes).sum::<usize>() + self.constants.iter().map(|(_, v)| 4 * v.len()).sum::<usize>()
    }
}

fn kernel(step: &Step) -> &'static str {
    match step {
        Step::Input { .. } => "input",
        Step::Time { .. } | Step::Class { .. } | Step::Condition { .. } | Step::Rows { .. } => "embedding",
        Step::Clear { .. } | Step::Border { .. } => "zeros",
        Step::Unary { f: Unary::Copy, .. } => "copy",
        Step::Unary { f: Unary::Silu, .. } => "SiLU",
        Step::Unary { .. } => "function",
        Step::Binary { .. } => "sum or product",
        Step::Reduce { .. } => "reduction",
        Step::EachRow { f: Rows::Softmax, .. } => "softmax",
        Step::EachRow { f: Rows::Layer { .. }, .. } => "layer norm",
        Step::Product(_) => "matrix × matrix",
        Step::Matrix { .. } => "matrix × vector",
        Step::Convolution { packed, residual, .. } => match (packed.method, residual) {
            (Method::Direct, None) => "convolution",
            (Method::Direct, Some(_)) => "convolution + residual",
            (Method::Winograd(_), None) => "Winograd convolution",
            (Method::Winograd(_), Some(_)) => "Winograd convolution + residual",
        },
        Step::Convolution8 { packed, residual, .. } => match (packed.method(), residual) {
            (Method::Direct, None) => "8-bit convolution",
            (Method::Direct, Some(_)) => "8-bit convolution + residual",
            (Method::Winograd(_), None) => "8-bit Winograd convolution",
            (Method::Winograd(_), Some(_)) => "8-bit Winograd convolution + residual",
        },
        Step::Map { op: Map::Silu, .. } => "SiLU",
        Step::Map { op: Map::Add(_), .. } => "add",
        Step::Map { .. } => "rounding",
        Step::Upsample { .. } => "upsample",
        Step::Norm { silu: false, .. } => "group norm",
        Step::Norm { output: dense::Output::Levels(..), .. } => "group norm + SiLU to 8 bits",
        Step::Norm { .. } => "group norm + SiLU",
        Step::Attention { mask: None, .. } => "attention",
        Step::Attention { .. } => "masked attention",
        Step::Pool { .. } => "pooling",
        Step::Output { .. } => "output",
    }
}

/// A step's sizes, and its multiply-adds.
fn sizes(step: &Step) -> (String, u64) {
    let picture = |v: &View| (format!("{}×{}×{}", v.c, v.h, v.w), 0);
    let count = |n: usize| (n.to_string(), 0);
    let convolution = |shape: &kernels::conv::Shape, input: &View, [h, w]: [usize; 2]| {
        let [kh, kw] = shape.kernel;
        let macs = shape.c_in * shape.c_out * kh * kw * h * w;
        let text = format!(
            "{}×{}×{} → {}×{h}×{w}, {kh}×{kw}, stride {}",
            input.c, input.h, input.w, shape.c_out, shape.stride
        );
        (text, macs as u64)
    };
    match step {
        Step::Input { loops } | Step::Unary { loops, .. } | Step::Output { loops } => count(loops.len()),
        Step::Binary { loops, .. } => count(loops.len()),
        Step::Reduce { loops, .. } => count(loops.len()),
        Step::EachRow { loops, length, .. } => (format!("{} × {length}", loops.len()), 0),
        Step::Time { to, .. }
        | Step::Class { to }
        | Step::Condition { to, .. }
        | Step::Rows { to, .. }
        | Step::Clear { to } => count(to.len),
        Step::Product(p) => {
            let [rows, columns, inner] = p.sizes;
            let batch = p.batch.len();
            (format!("{batch} × {rows}×{inner} · {inner}×{columns}"), (batch * rows * columns * inner) as u64)
        }
        Step::Matrix { from, to, .. } => (format!("{} → {}", from.len, to.len), (from.len * to.len) as u64),
        Step::Convolution { packed, input, output, .. } => convolution(&packed.shape, input, [output.h, output.w]),
        Step::Convolution8 { packed, input, output, output8, .. } => {
            let to = output.or(output8.map(|o| o.0)).unwrap_or(*input);
            convolution(&packed.shape, input, [to.h, to.w])
        }
        Step::Border { view, .. } => picture(view),
        Step::Map { input, .. } | Step::Norm { input, .. } => picture(input),
        Step::Pool { input, .. } | Step::Upsample { input, .. } => picture(input),
        Step::Attention { attention: a, .. } => {
            let (queries, keys) = (a.query.h * a.query.w, a.key.h * a.key.w);
            let text = format!("{} heads, {queries} × {keys}, {} channels", a.heads, a.query.c);
            (text, (queries * keys * (a.query.c + a.value.c)) as u64)
        }
    }
}
