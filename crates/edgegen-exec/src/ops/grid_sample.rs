//! GridSample: images read where a grid of coordinates says.

use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::graph::{Inference, unknown_form};
use crate::lower::{Lowered, Lowering, Operand};
use crate::node::{int, text};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::ImageView;
use kernels::grid::{Interpolation, Padding, Sampling};
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] =
    &[Operator::new("GridSample").attributes(&["align_corners", "mode", "padding_mode"]).infer(infer).lower(lower)];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    match (n.shape(0)?, n.shape(1)?) {
        (&[images, c, _, _], &[grids, h, w, 2]) if images == grids => Ok(vec![vec![images, c, h, w]]),
        _ => Err(unknown_form()),
    }
}

fn sampling(node: &NodeProto) -> Option<Sampling> {
    Some(Sampling {
        // some have other names since opset 20
        interpolation: match text(node, "mode") {
            None | Some("linear" | "bilinear") => Interpolation::Linear,
            Some("nearest") => Interpolation::Nearest,
            Some("cubic" | "bicubic") => Interpolation::Cubic,
            Some(_) => return None,
        },
        padding: match text(node, "padding_mode") {
            None | Some("zeros") => Padding::Zeros,
            Some("border") => Padding::Border,
            Some("reflection") => Padding::Reflection,
            Some(_) => return None,
        },
        align_corners: int(node, "align_corners").unwrap_or(0) != 0,
    })
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    l.one(i, GridSample { x: l.operand(node, 0)?, grid: l.operand(node, 1)?, sampling: sampling(node)? })
}

/// Images at the coordinates of a grid for each.
struct GridSample<'a> {
    x: Operand<'a>,
    grid: Operand<'a>,
    sampling: Sampling,
}

impl<'a> Operation<'a> for GridSample<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        [&self.x, &self.grid].into_iter().filter_map(Operand::value).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let grid = c.operand(&self.grid)?;
        let grid = c.contiguous(&grid, |place| place.run().is_some())?;
        let (place, outputs) = c.results(out)?;
        let inputs = match self.x {
            Operand::Value(name) => c.images(name, [0, 0])?,
            Operand::Stored(_) => {
                let x = c.operand(&self.x)?;
                let image = |i: usize| {
                    let mut one = x.clone();
                    one.start += i * x.strides[0];
                    one.dims[0] = 1;
                    one
                };
                (0..x.dims[0]).map(|i| c.as_view(&image(i))).collect::<Result<_, _>>()?
            }
        };
        let len = grid.len() / outputs.len().max(1);
        for (i, (input, output)) in inputs.into_iter().zip(outputs).enumerate() {
            let mut places = Places::default();
            let grid = places.slice(Access::Read, Slice { start: grid.start + i * len, len });
            let (input, output) = (places.image(Access::Read, input), places.image(Access::Write, output));
            c.push(GridSampleStep { sampling: self.sampling, grid, input, output }, places);
        }
        c.put(out, place);
        Ok(())
    }
}

#[derive(Debug)]
struct GridSampleStep {
    sampling: Sampling,
    grid: Handle<Slice>,
    input: Handle<ImageView>,
    output: Handle<ImageView>,
}

impl Kernel for GridSampleStep {
    fn name(&self, _: &Places) -> &'static str {
        "image at coordinates"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let to = places.get(self.output);
        (format!("{} → {}×{}", image_size(&places.get(self.input)), to.h, to.w), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let to = places.get(self.output);
        let taps = match self.sampling.interpolation {
            Interpolation::Nearest => 1,
            Interpolation::Linear => 4,
            Interpolation::Cubic => 16,
        };
        Some(product(&[to.h, to.w, to.c.saturating_mul(4).saturating_add(60), taps]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (input, output, grid) = (places.get(self.input), places.get(self.output), places.get(self.grid));
        let pairs = product(&[2, output.h, output.w]);
        let fits = input.c == output.c && grid.len == pairs;
        if fits { Ok(()) } else { Err("a grid that does not fit its image".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let (input, output, grid) = (places.get(self.input), places.get(self.output), places.get(self.grid));
        kernels::sample_grid(isa, self.sampling, input, grid.start, output, part, memory);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};

    /// 0 1 2 3 as one row, read at these coordinates of its columns.
    fn read(at: [f32; 4], attributes: &[Attribute]) -> Vec<f32> {
        let mut b = Builder::new(0);
        let grid = b.stored(&[1, 1, 4, 2], &at.map(|x| [x, 0.0]).concat());
        let all = [&[Attribute::Int("align_corners", 1)], attributes].concat();
        let sampled = b.op("GridSample", &["x", &grid], &all);
        let (steps, result) = steps_and_result(&mut b, &[1, 1, 1, 4], &sampled);
        assert_eq!(steps, ["image at coordinates"]);
        result
    }

    #[test]
    fn images_are_read_between_and_beyond_their_pixels() {
        // pixels are two thirds apart; the first and the last coordinates lie half a pixel beyond the image
        let at = [-4.0 / 3.0, -2.0 / 3.0, 0.0, 4.0 / 3.0];
        let close = |result: Vec<f32>, expected: [f32; 4]| {
            assert!(result.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{result:?} for {expected:?}");
        };
        close(read(at, &[]), [0.0, 0.5, 1.5, 1.5]);
        close(read(at, &[Attribute::Text("padding_mode", "border")]), [0.0, 0.5, 1.5, 3.0]);
        close(read(at, &[Attribute::Text("padding_mode", "reflection")]), [0.5, 0.5, 1.5, 2.5]);
        // a tie is rounded to the even one
        close(read(at, &[Attribute::Text("mode", "nearest")]), [0.0, 0.0, 2.0, 0.0]);
        // (-3 · 0 + 19 · 1 + 19 · 2 - 3 · 3) / 32
        close(read([0.0; 4], &[Attribute::Text("mode", "cubic")]), [1.5; 4]);
    }

    #[test]
    fn a_grid_of_other_than_pairs_is_refused() {
        let mut b = Builder::new(0);
        let grid = b.stored(&[1, 1, 4, 3], &[0.0; 12]);
        let sampled = b.op("GridSample", &["x", &grid], &[]);
        assert!(b.plan(kernels::Isa::detect(), &[1, 1, 1, 4], 1, &sampled).is_err());
    }
}
