//! Resize and Upsample: images of another size, by the nearest pixels, or by linear or cubic interpolation.

use super::zeros::image_size;
use super::{InHalves, Operation, Operator};
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, float, int, ints, lengths, text};
use crate::place::{Handle, Places};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use kernels::resample::Taps;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Resize")
        .attributes(&[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ])
        .infer(|n| if n.opset() < 11 { Err(unknown_form()) } else { infer(n, 2) })
        .lower(lower),
    Operator::new("Upsample").attributes(&["mode"]).infer(|n| infer(n, 1)).lower(lower),
];

/// How much longer each dimension becomes, and how long.
type Sizes = Vec<(f32, usize)>;

/// What a node says of the result's dimensions.
fn sizes<'c>(
    node: &NodeProto,
    x: &[usize],
    given: impl Fn(usize) -> Option<&'c Constant>,
    scales: usize,
) -> Result<Sizes, Reason> {
    let given = |i: usize| given(i).filter(|s: &&Constant| !s.values.is_empty());
    let axes: Vec<usize> = match ints(node, "axes") {
        Some(axes) => axes.iter().map(|a| axis(*a, x.len())).collect::<Result<_, _>>()?,
        None => (0..x.len()).collect(),
    };
    if text(node, "keep_aspect_ratio_policy").is_some_and(|p| p != "stretch") {
        return Err(unknown_form());
    }
    let mut all: Sizes = x.iter().map(|n| (1.0, *n)).collect();
    match (given(3), given(scales)) {
        (Some(sizes), _) if sizes.values.len() == axes.len() => {
            for (a, size) in axes.iter().zip(lengths(&sizes.integers())?) {
                all[*a] = (size as f32 / x[*a] as f32, size);
            }
        }
        (_, Some(scales)) if scales.values.len() == axes.len() => {
            for (a, scale) in axes.iter().zip(scales.values.iter()) {
                // in f32, as it is defined
                let size = (x[*a] as f32 * scale).floor();
                if !(1.0..1e9).contains(&size) {
                    return Err(unknown_form());
                }
                all[*a] = (*scale, size as usize);
            }
        }
        _ => return Err(unknown_form()),
    }
    Ok(all)
}

fn infer(n: &Inference, scales: usize) -> Result<Vec<Vec<usize>>, Reason> {
    let x = n.shape(0)?;
    Ok(vec![sizes(n.node, x, |i| n.stored(i), scales)?.into_iter().map(|(_, n)| n).collect()])
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let from = l.dims(x)?;
    let scales = if node.op_type == "Upsample" { 1 } else { 2 };
    let sizes = sizes(node, from, |k| l.constant(node, k), scales).ok()?;
    if from.len() < 3 || sizes[..2].iter().zip(from).any(|(to, n)| *to != (1.0, *n)) {
        return None;
    }
    let side = |d: usize| Side { n: from[d], scale: sizes[d].0, results: sizes[d].1 };
    let sides: Vec<Side> = (2..from.len()).map(side).collect();
    let how = Interpolation::of(node)?;
    if sides.len() == 2 && sides.iter().all(|s| s.results == 2 * s.n && s.scale == 2.0) && how.doubles() {
        return l.one(i, Doubled { x });
    }
    let taps: Vec<Taps> = sides.iter().map(|side| how.taps(l, side)).collect::<Option<_>>()?;
    let one = || Taps::new(1, vec![(0, 1.0)]).ok();
    match <[Taps; 1]>::try_from(taps) {
        Ok([columns]) => l.one(i, Resample { x, taps: [one()?, columns] }),
        Err(taps) => l.one(i, Resample { x, taps: <[Taps; 2]>::try_from(taps).ok()? }),
    }
}

/// A side of an image that becomes another.
struct Side {
    n: usize,
    scale: f32,
    results: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What a node says of how results are made.
struct Interpolation<'n> {
    mode: Mode,
    coordinates: &'n str,
    rounding: &'n str,
    a: f32,
    exclude_outside: bool,
    antialias: bool,
}

impl<'n> Interpolation<'n> {
    fn of(node: &'n NodeProto) -> Option<Self> {
        let mode = match text(node, "mode").unwrap_or("nearest") {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" => Mode::Cubic,
            _ => return None,
        };
        // an Upsample is the oldest Resize
        let old = node.op_type == "Upsample";
        let said = |name: &str, default: &'static str| text(node, name).unwrap_or(default);
        Some(Interpolation {
            mode,
            coordinates: if old { "asymmetric" } else { said("coordinate_transformation_mode", "half_pixel") },
            rounding: if old { "floor" } else { said("nearest_mode", "round_prefer_floor") },
            a: float(node, "cubic_coeff_a").unwrap_or(-0.75),
            exclude_outside: int(node, "exclude_outside").unwrap_or(0) != 0,
            antialias: int(node, "antialias").unwrap_or(0) != 0,
        })
    }

    /// Whether an image of twice the size has each pixel four times.
    fn doubles(&self) -> bool {
        let floors = matches!(
            (self.coordinates, self.rounding),
            ("asymmetric", "floor") | ("half_pixel" | "pytorch_half_pixel", "round_prefer_floor" | "round_prefer_ceil")
        );
        self.mode == Mode::Nearest && floors
    }

    /// Where result `i` is in the input, in f32 as it is defined: what is nearest may depend on how that rounds.
    fn place(&self, side: &Side, i: usize) -> Option<f32> {
        let (i, scale) = (i as f32, side.scale);
        let (n, results) = (side.n as f32, side.results as f32);
        Some(match self.coordinates {
            "half_pixel" => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" if side.results > 1 => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" => 0.0,
            "half_pixel_symmetric" => {
                // a scale that does not give whole sizes moves the image to the middle
                let adjustment = results / (scale * n);
                n / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
            }
            "align_corners" if side.results > 1 => i * (n - 1.0) / (results - 1.0),
            "align_corners" => 0.0,
            "asymmetric" => i / scale,
            "tf_half_pixel_for_nn" => (i + 0.5) / scale,
            _ => return None,
        })
    }

    /// What the results along a side are made of.
    fn taps(&self, l: &Lowering, side: &Side) -> Option<Taps> {
        // with antialiasing the window grows as the image shrinks
        let wide = if self.antialias { (1.0 / f64::from(side.scale)).max(1.0) } else { 1.0 };
        let reach = match self.mode {
            Mode::Nearest => 0.0,
            Mode::Linear => wide,
            Mode::Cubic => 2.0 * wide,
        };
        let most = ((2.0 * reach).ceil() as usize).saturating_add(3);
        l.graph.take_numbers(side.results.checked_mul(most)?.checked_mul(4)?).ok()?;
        let each = |i| self.taps_of(side, self.place(side, i)?, reach, wide);
        let all: Vec<Vec<(usize, f32)>> = (0..side.results).map(each).collect::<Option<_>>()?;
        let longest = all.iter().map(Vec::len).max()?;
        // as many for each: those that are there for the sake of others weigh nothing
        let filled = |mut taps: Vec<(usize, f32)>| {
            let last = taps.last().map_or(0, |(i, _)| *i);
            taps.resize(longest, (last, 0.0));
            taps
        };
        Taps::new(longest, all.into_iter().flat_map(filled).collect()).ok()
    }

    /// What a result at `x` is made of.
    fn taps_of(&self, side: &Side, x: f32, reach: f64, wide: f64) -> Option<Vec<(usize, f32)>> {
        let last = side.n.checked_sub(1)? as f64;
        let inside = |i: f64| i.clamp(0.0, last) as usize;
        if self.mode == Mode::Nearest {
            let i = match self.rounding {
                "round_prefer_floor" => (x - 0.5).ceil(),
                "round_prefer_ceil" => (x + 0.5).floor(),
                "floor" => x.floor(),
                "ceil" => x.ceil(),
                _ => return None,
            };
            return Some(vec![(inside(f64::from(i)), 1.0)]);
        }
        // a linear result beyond the image is its last pixel
        let x = f64::from(x);
        let x = if self.mode == Mode::Linear && !self.antialias { x.clamp(0.0, last) } else { x };
        let (first, end) = ((x - reach).floor(), (x + reach).ceil());
        let a = f64::from(self.a);
        let weight = |i: f64| {
            let d = ((i - x) / wide).abs();
            match self.mode {
                Mode::Linear => (1.0 - d).max(0.0),
                _ if d < 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            }
        };
        let all = (0..=(end - first) as usize).map(|k| first + k as f64).map(|i| (i, weight(i)));
        // beyond the image are its last pixels, unless they are to be left out
        let leaves_out = self.exclude_outside;
        let outside = |i: f64| i < 0.0 || i > last;
        let all: Vec<(f64, f64)> = all.filter(|(i, w)| *w != 0.0 && !(leaves_out && outside(*i))).collect();
        let total: f64 = all.iter().map(|(_, w)| w).sum();
        let share = if leaves_out || self.antialias { 1.0 / total } else { 1.0 };
        (!all.is_empty()).then(|| all.into_iter().map(|(i, w)| (inside(i), (w * share) as f32)).collect())
    }
}

/// An image whose rows and columns are weighted sums of another's.
struct Resample<'a> {
    x: &'a str,
    taps: [Taps; 2],
}

impl<'a> Operation<'a> for Resample<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        c.image_by_image(self.x, out, |input, output| {
            let [rows, columns] = self.taps.clone();
            ResampleStep { rows, columns, input, output }
        })
    }
}

#[derive(Debug)]
struct ResampleStep {
    rows: Taps,
    columns: Taps,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for ResampleStep {
    fn name(&self, _: &Places) -> &'static str {
        "resize"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let to = places.get(self.output);
        (format!("{} → {}×{}", image_size(&places.get(self.input)), to.h, to.w), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let to = places.get(self.output);
        Some(product(&[4, to.c, to.h, to.w, self.rows.each(), self.columns.each()]))
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.columns.bytes()
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let results = [self.rows.len(), self.columns.len()] == [output.h, output.w];
        let fits = results && self.rows.fits(input.h) && self.columns.fits(input.w) && input.c == output.c;
        if fits { Ok(()) } else { Err("images of unlike sizes".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let (input, output) = (places.get(self.input), places.get(self.output));
        kernels::resample(isa, &self.rows, &self.columns, input, output, part, memory);
    }
}

/// Every pixel as a square of four.
struct Doubled<'a> {
    x: &'a str,
}

impl<'a> Operation<'a> for Doubled<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn in_halves(&self, _: &Compiler<'_, 'a>, _: &str) -> InHalves {
        InHalves::LikeItsInputs
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        c.image_by_image(self.x, out, |input, output| Double { input, output })
    }
}

/// Every pixel as a square of four.
#[derive(Debug)]
struct Double {
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for Double {
    fn name(&self, _: &Places) -> &'static str {
        "upsample"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (image_size(&places.get(self.input)), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let v = places.get(self.output);
        Some(product(&[8, v.c, v.h, v.w]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output) = (places.get(self.input), places.get(self.output));
        let doubled = input.h.checked_mul(2).zip(input.w.checked_mul(2));
        let fits = doubled == Some((output.h, output.w)) && input.c == output.c;
        if fits { Ok(()) } else { Err("images of unlike sizes".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        kernels::upsample(isa, places.get(self.input), places.get(self.output), part, memory);
    }
}
