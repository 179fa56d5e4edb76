//! Col2Im (PyTorch's fold): columns of overlapping blocks, added up to images.

use super::window;
use super::zeros::image_size;
use super::{Operation, Operator};
use crate::compile::Compiler;
use crate::constant::{Constant, count};
use crate::graph::unknown_form;
use crate::lower::{Lowered, Lowering};
use crate::node::{lengths, pair};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::{ImageView, StridedView};
use kernels::pool::Side;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[Operator::new("Col2Im")
    .attributes(&["dilations", "pads", "strides"])
    .infer(|n| Ok(vec![blocks(n.node, n.shape(0)?, (n.required(1)?, n.required(2)?))?.dims]))
    .lower(lower)];

/// What a node says of its blocks and of its result.
struct Folded {
    /// The dimensions of the result.
    dims: Vec<usize>,
    sides: [Side; 2],
    /// How many rows and columns of blocks there are.
    blocks: [usize; 2],
}

fn blocks(node: &NodeProto, x: &[usize], (image, block): (&Constant, &Constant)) -> Result<Folded, Reason> {
    let (image, block) = (lengths(&image.integers())?, lengths(&block.integers())?);
    let sides = window::sides(node, Some(&block), &image).ok_or_else(unknown_form)?;
    let each: Option<Vec<usize>> = sides.iter().zip(&image).map(|(side, n)| side.results(*n, false)).collect();
    let (&[n, rows, columns], Some(each)) = (x, each) else { return Err(unknown_form()) };
    let of_block = count(&block)?;
    if of_block == 0 || rows % of_block != 0 || count(&each)? != columns {
        return Err(Reason::Malformed("its columns do not fit its image".into()));
    }
    let dims = [&[n, rows / of_block], image.as_slice()].concat();
    let blocks = pair(&each, 1).ok_or_else(unknown_form)?;
    Ok(Folded { dims, sides: window::rows_and_columns(&sides).ok_or_else(unknown_form)?, blocks })
}

fn lower<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let Folded { sides, blocks, .. } =
        blocks(node, l.dims(x)?, (l.constant(node, 1)?, l.constant(node, 2)?)).ok()?;
    l.one(i, Fold { x, sides, blocks })
}

/// Columns as images.
struct Fold<'a> {
    x: &'a str,
    sides: [Side; 2],
    blocks: [usize; 2],
}

impl<'a> Operation<'a> for Fold<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let (place, images) = c.results(out)?;
        let [kernel, blocks] = [self.sides.map(|side| side.kernel), self.blocks];
        let dims = [images.len(), images[0].c, kernel[0], kernel[1], blocks[0], blocks[1]];
        let columns = c.value(self.x)?;
        let columns = match columns.reshaped(&dims) {
            Some(columns) => columns,
            None => c.contiguous(&columns, |_| false)?.reshaped(&dims).ok_or("columns that are not together")?,
        };
        // the channels of a place of a block last, as in images
        let columns = c.contiguous(&columns.permuted(&[0, 2, 3, 4, 5, 1]), |place| place.run().is_some())?;
        fold(c, self.sides, self.blocks, &columns, &images)?;
        c.put(out, place);
        Ok(())
    }
}

/// Pushes steps that add columns up to images. Columns are `[N, rows and columns of a block, rows and columns of blocks, C]`,
/// and lie together.
pub fn fold(
    c: &mut Compiler,
    sides: [Side; 2],
    blocks: [usize; 2],
    columns: &StridedView,
    images: &[ImageView],
) -> Result<(), Reason> {
    let len = columns.len() / images.len().max(1);
    for (i, image) in images.iter().enumerate() {
        let mut places = Places::default();
        let columns = places.slice(Access::Read, Slice { start: columns.start + i * len, len });
        let image = places.image(Access::Write, *image);
        c.push(FoldStep { sides, blocks, columns, image }, places);
    }
    Ok(())
}

#[derive(Debug)]
struct FoldStep {
    sides: [Side; 2],
    /// How many rows and columns of blocks there are.
    blocks: [usize; 2],
    columns: Handle<Slice>,
    image: Handle<ImageView>,
}

/// The numbers of a side's kernel, and the blocks, that fall on place `at` of the image.
fn on(side: Side, blocks: usize, at: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side.kernel).filter_map(move |k| {
        let before = (at + side.before).checked_sub(k * side.dilation)?;
        let block = before / side.stride;
        (before % side.stride == 0 && block < blocks).then_some((k, block))
    })
}

impl Kernel for FoldStep {
    fn name(&self, _: &Places) -> &'static str {
        "overlapping blocks"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let [rows, columns] = self.sides;
        (format!("{}, {}×{}", image_size(&places.get(self.image)), rows.kernel, columns.kernel), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[15, places.get(self.columns).len]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (columns, image) = (places.get(self.columns), places.get(self.image));
        let [rows, across] = self.sides;
        let sizes = [rows.kernel, across.kernel, self.blocks[0], self.blocks[1], image.c];
        let moves = self.sides.iter().all(|side| side.stride > 0 && side.extent().is_some());
        let fits = moves && count(&sizes)? == columns.len;
        if fits { Ok(()) } else { Err("columns that do not fit their image".into()) }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (columns, image) = (places.get(self.columns), places.get(self.image));
        let [rows, across] = self.sides;
        let [high, wide] = self.blocks;
        for (y, xs) in part.lines(image.h, image.w) {
            for x in xs {
                let to = image.start + y * image.row + x * image.pixel;
                (0..image.c).for_each(|c| memory.set(to + c, 0.0));
                for (i, by) in on(rows, high, y) {
                    for (j, bx) in on(across, wide, x) {
                        let from = columns.start + (((i * across.kernel + j) * high + by) * wide + bx) * image.c;
                        for c in 0..image.c {
                            memory.set(to + c, memory.get(to + c) + memory.get(from + c));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Attribute, Builder, steps_and_result};

    /// Columns of 1, 2, 3, 4 in blocks of two, one apart: 1 and 2 in the first row of each block, 3 and 4 in the second.
    #[test]
    fn blocks_that_overlap_are_added_up() {
        let mut b = Builder::new(0);
        let shape = b.list(&[1, 2, 2]);
        let columns = b.op("Reshape", &["x", &shape], &[]);
        let (image, block) = (b.list(&[1, 3]), b.list(&[1, 2]));
        let folded = b.op("Col2Im", &[&columns, &image, &block], &[]);
        let fill = b.list(&[0, 0, 0, 0, 0, 0, 0, 1]);
        let filled = b.op("Pad", &[&folded, &fill], &[]);
        let shape = b.list(&[1, 1, 2, 2]);
        let result = b.op("Reshape", &[&filled, &shape], &[]);
        let (steps, result) = steps_and_result(&mut b, &[1, 1, 2, 2], &result);
        assert!(steps.contains(&"overlapping blocks"), "{steps:?}");
        assert_eq!(result, [0.0, 1.0 + 2.0, 3.0, 0.0]);
    }

    #[test]
    fn columns_that_are_not_those_of_an_image_are_refused() {
        for (image, stride) in [([1, 4], 1), ([2, 3], 1), ([1, 3], 0)] {
            let mut b = Builder::new(0);
            let shape = b.list(&[1, 2, 2]);
            let columns = b.op("Reshape", &["x", &shape], &[]);
            let (image, block) = (b.list(&image), b.list(&[1, 2]));
            let folded = b.op("Col2Im", &[&columns, &image, &block], &[Attribute::Ints("strides", &[1, stride])]);
            assert!(b.plan(kernels::Isa::detect(), &[1, 1, 2, 2], 1, &folded).is_err());
        }
    }
}
