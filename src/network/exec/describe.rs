//! What a plan is made of, and where its time goes.

use super::arena::View;
use super::kernels::{conv::Method, dense};
use super::plan::{Plan, Step, Workspace};
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

    /// The steps in their order, with the median times of `runs` runs.
    pub fn profile(&self, workspace: &mut Workspace, sample_len: usize, runs: usize) -> Vec<StepInfo> {
        let x: Vec<f32> = (0..sample_len).map(|i| (i as f32).sin()).collect();
        let mut out = vec![0.0; sample_len];
        let mut times = vec![Vec::with_capacity(runs); self.steps.len()];
        self.run(workspace, &x, 500.0, 0, &mut out);
        for _ in 0..runs {
            for (step, times) in self.steps.iter().zip(&mut times) {
                let start = Instant::now();
                self.step(step, workspace, &x, 500.0, 0, &mut out);
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
            Step::Matrix { columns, bias, .. } => 4 * (columns.len() + bias.len()),
            Step::Row { table, .. } => 4 * table.len(),
            Step::Norm { scale, shift, .. } => 4 * (scale.len() + shift.len()),
            _ => 0,
        };
        self.steps.iter().map(bytes).sum()
    }
}

fn kernel(step: &Step) -> &'static str {
    match step {
        Step::Input { .. } => "input",
        Step::Time { .. } | Step::Row { .. } | Step::Vector { .. } => "embedding",
        Step::Matrix { .. } => "matrix × vector",
        Step::Convolution { packed, residual, .. } => match (packed.method, residual) {
            (Method::Direct, None) => "convolution",
            (Method::Direct, Some(_)) => "convolution + residual",
            (Method::Winograd, None) => "Winograd convolution",
            (Method::Winograd, Some(_)) => "Winograd convolution + residual",
        },
        Step::Convolution8 { residual: None, .. } => "8-bit convolution",
        Step::Convolution8 { .. } => "8-bit convolution + residual",
        Step::Map { output: dense::Output::Levels(..), .. } | Step::Map { op: dense::Map::Round(_), .. } => "rounding",
        Step::Map { op: dense::Map::Silu, .. } => "SiLU",
        Step::Map { op: dense::Map::Add(_), .. } => "add",
        Step::Map { op: dense::Map::Copy, .. } => "copy",
        Step::Norm { silu: false, .. } => "group norm",
        Step::Norm { output: dense::Output::Levels(..), .. } => "group norm + SiLU to 8 bits",
        Step::Norm { .. } => "group norm + SiLU",
        Step::Upsample { .. } => "upsample",
        Step::Attention(_) => "attention",
        Step::Output { .. } => "output",
    }
}

/// A step's sizes, and its multiply-adds.
fn sizes(step: &Step) -> (String, u64) {
    let picture = |v: &View| (format!("{}×{}×{}", v.c, v.h, v.w), 0);
    let convolution = |shape: &super::kernels::conv::Shape, input: &View, output: &View| {
        let macs = shape.c_in * shape.c_out * shape.kernel[0] * shape.kernel[1] * output.h * output.w;
        let text = format!(
            "{}×{}×{} → {}×{}×{}, {}×{}, stride {}",
            input.c, input.h, input.w, output.c, output.h, output.w, shape.kernel[0], shape.kernel[1], shape.stride,
        );
        (text, macs as u64)
    };
    match step {
        Step::Input { to } => picture(to),
        Step::Time { to } | Step::Row { to, .. } | Step::Vector { to, .. } => (to.len.to_string(), 0),
        Step::Matrix { from, to, .. } => (format!("{} → {}", from.len, to.len), (from.len * to.len) as u64),
        Step::Convolution { packed, input, output, .. } => convolution(&packed.shape, input, output),
        Step::Convolution8 { packed, input, .. } => {
            let side = |n: usize, i: usize| {
                (n + 2 * packed.shape.padding[i] - packed.shape.kernel[i]) / packed.shape.stride + 1
            };
            let output = View { c: packed.shape.c_out, h: side(input.h, 0), w: side(input.w, 1), ..*input };
            convolution(&packed.shape, input, &output)
        }
        Step::Map { input, .. }
        | Step::Norm { input, .. }
        | Step::Upsample { input, .. }
        | Step::Output { from: input, .. } => picture(input),
        Step::Attention(a) => {
            let [pixels, keys] = [a.output, a.key].map(|v| v.h * v.w);
            (format!("{pixels} pixels, {} channels", a.output.c), (pixels * keys * (a.key.c + a.value.c)) as u64)
        }
    }
}
