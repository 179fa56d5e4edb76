//! Arguments that safe code can build and that must be refused, by constructors or by the kernels: none may make a kernel
//! reach beyond its buffers. Under Miri and AddressSanitizer these tests show that none does.

use crate::arena::{Extent, ImageView, Layout, Precision, StridedView};
use crate::attention::Attention;
use crate::conv::{Method, Packed, Run, Shape};
use crate::conv8::{Packed8, QuantParams, Run8};
use crate::dense::{GroupNorm, Map, Matrix, Output};
use crate::general::{Binary, MatMul, RowOp, StridedLoops, Unary};
use crate::reduce::Reduction;
use crate::weights::Stored;
use crate::winograd::{self, Square};
use crate::{Isa, Memory, Part, depthwise, grid, pool, resample};
use std::panic::{AssertUnwindSafe, catch_unwind};

const FAR: usize = usize::MAX / 2;

/// Whether a kernel refuses to run on a memory of so many numbers and bytes, which it must then leave as they were.
fn refused(len: usize, bytes: usize, run: impl FnOnce(Memory)) -> bool {
    let (mut arena, mut all) = (vec![1.5; len], vec![3; bytes]);
    let refused = catch_unwind(AssertUnwindSafe(|| run(Memory::new(&mut arena, &mut all)))).is_err();
    assert!(!refused || (arena.iter().all(|v| *v == 1.5) && all.iter().all(|v| *v == 3)), "refused half way");
    refused
}

fn extent(c: usize, h: usize, w: usize) -> Extent {
    Extent { c, h, w, start: 0, pixel: c, row: w * c, border: [0, 0], precision: Precision::F32 }
}

fn view(c: usize, h: usize, w: usize) -> ImageView {
    ImageView::new(extent(c, h, w)).unwrap()
}

const SHAPE: Shape = Shape { c_out: 5, c_in: 3, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [0, 0] };

fn packed(shape: Shape, isa: Isa) -> Packed {
    let weights = vec![0.1; shape.c_out * shape.c_in * shape.kernel[0] * shape.kernel[1]];
    Packed::new(shape, Method::Direct, Stored::Float(&weights), None, isa).unwrap()
}

#[test]
fn views_that_cannot_be_counted_are_not_made() {
    let whole = extent(3, 4, 5);
    assert!(ImageView::new(whole).is_some());
    for wrong in [
        Extent { c: 0, ..whole },
        Extent { h: 0, ..whole },
        Extent { w: 0, ..whole },
        Extent { start: usize::MAX, ..whole },
        Extent { start: usize::MAX - 50, ..whole },
        Extent { row: FAR, ..whole },
        Extent { pixel: FAR, ..whole },
        Extent { h: FAR, ..whole },
        // as many rows and columns of the same numbers
        Extent { h: FAR, w: FAR, row: 0, pixel: 0, ..whole },
        // a border that begins before the first number, and others beyond the last
        Extent { border: [1, 0], ..whole },
        Extent { border: [0, 1], ..whole },
        Extent { border: [FAR, 0], start: FAR, ..whole },
        Extent { border: [0, usize::MAX], start: FAR, ..whole },
    ] {
        assert!(ImageView::new(wrong).is_none(), "{wrong:?}");
    }
    let view = ImageView::new(Extent { start: 20, border: [1, 1], ..whole }).unwrap();
    assert!(view.with_start(usize::MAX - 3).is_none() && view.with_start(17).is_none());
    assert!(view.channels(1, 3).is_none() && view.channels(usize::MAX, 2).is_none() && view.channels(0, 0).is_none());
    let mut layout = Layout::default();
    assert!(layout.place([FAR, 4, 4], [0, 0]).is_none() && layout.place([1, 1, 1], [FAR, FAR]).is_none());
    assert!(layout.place([0, 1, 1], [0, 0]).is_none() && layout.storage(usize::MAX).is_none());
    assert!(StridedView::row_major(0, &[FAR, FAR, 3]).rows().is_none());
    assert!(StridedView::row_major(0, &[2, 3]).reshaped(&[7]).is_none());
}

#[test]
fn loops_and_products_that_cannot_be_counted_are_not_made() {
    assert!(StridedLoops::<1>::new(&[2, 3], [(0, &[3, 1])]).is_some());
    assert!(StridedLoops::<1>::new(&[2, 3], [(0, &[1])]).is_none());
    assert!(StridedLoops::<1>::new(&[2, 3], [(usize::MAX - 2, &[3, 1])]).is_none());
    assert!(StridedLoops::<1>::new(&[2, 3], [(0, &[usize::MAX, 1])]).is_none());
    assert!(StridedLoops::<1>::new(&[FAR, FAR], [(0, &[0, 0])]).is_none());
    assert!(StridedLoops::<1>::new(&[2; 7], [(0, &[1000, 3, 300, 9, 100, 27, 1])]).is_none());
    let ok = StridedLoops::<1>::new(&[2, 3], [(0, &[3, 1])]).unwrap();
    assert!(ok.with_starts([usize::MAX]).is_none());
    let batch = StridedLoops::<3>::new(&[2], [(0, &[6]), (20, &[6]), (40, &[6])]).unwrap();
    let strides = [[3, 1], [2, 1], [3, 1]];
    assert!(MatMul::new(batch, [2, 3, 2], strides).is_some());
    assert!(MatMul::new(batch, [0, 3, 2], strides).is_none() && MatMul::new(batch, [2, 3, 0], strides).is_none());
    assert!(MatMul::new(batch, [2, FAR, 2], strides).is_none() && MatMul::new(batch, [2, 3, FAR], strides).is_none());
    // rows of the result that overlap
    assert!(MatMul::new(batch, [2, 3, 2], [[1, 1], [2, 1], [3, 1]]).is_none());
    assert!(MatMul::new(batch, [2, 3, 2], [[3, 1], [usize::MAX, 1], [3, 1]]).is_none());
}

#[test]
fn levels_parts_and_attentions_that_make_no_sense_are_not_made() {
    for scale in [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40] {
        assert!(QuantParams::new(scale, 3).is_none(), "{scale}");
    }
    assert!(QuantParams::new(1e-30, 3).is_some() && QuantParams::new(f32::MAX, 3).is_some());
    assert!(Part::new(0, 0).is_none() && Part::new(2, 2).is_none());
    let (a, b) = (view(4, 1, 3), view(4, 1, 2));
    assert!(Attention::new([a, b, b, a], 2, 1.0).is_some());
    assert!(Attention::new([a, b, b, a], 0, 1.0).is_none() && Attention::new([a, b, b, a], 3, 1.0).is_none());
    assert!(Attention::new([a, b, a, a], 2, 1.0).is_none() && Attention::new([a, b, b, b], 2, 1.0).is_none());
    let overlapping = ImageView::new(Extent { pixel: 0, ..extent(4, 1, 3) }).unwrap();
    assert!(Attention::new([a, b, b, overlapping], 2, 1.0).is_none());
    // as many pixels as can be counted, in the same place
    let many = ImageView::new(Extent { pixel: 0, row: 0, w: FAR / 2, ..extent(4, 1, 1) }).unwrap();
    assert!(Attention::new([a, many, many, a], 2, 1.0).is_none());
}

#[test]
fn weights_that_do_not_fit_their_shape_are_not_packed() {
    let weights = [0.1; 15];
    let stored = Stored::Float(&weights);
    for isa in Isa::available() {
        let pack = |shape: Shape, stored| Packed::new(shape, Method::Direct, stored, None, isa);
        assert!(pack(SHAPE, stored).is_ok());
        for shape in [
            Shape { c_out: 0, ..SHAPE },
            Shape { c_in: 0, ..SHAPE },
            Shape { kernel: [0, 1], ..SHAPE },
            Shape { stride: [1, 0], ..SHAPE },
            Shape { dilation: [0, 1], ..SHAPE },
            Shape { c_out: 4, ..SHAPE },
            Shape { kernel: [2, 2], ..SHAPE },
            Shape { c_out: FAR, ..SHAPE },
            Shape { c_out: FAR, c_in: FAR, kernel: [FAR, FAR], ..SHAPE },
            // 15 modulo 2⁶⁴
            Shape { c_out: 15, c_in: usize::MAX, kernel: [usize::MAX, 1], ..SHAPE },
            Shape { padding: [usize::MAX, 0], ..SHAPE },
        ] {
            assert!(pack(shape, stored).is_err(), "{shape:?}");
            let eight = (&[1; 15][..], &[1.0][..]);
            assert!(Packed8::new(shape, Method::Direct, eight, None, QuantParams::new(1.0, 0).unwrap(), isa).is_err());
        }
        assert!(Packed::new(SHAPE, Method::Direct, stored, Some(&[0.0; 4]), isa).is_err());
        assert!(pack(SHAPE, Stored::Eight(&[1; 15], &[1.0; 4])).is_err());
        assert!(pack(SHAPE, Stored::Eight(&[1; 15], &[])).is_err());
        // what Winograd's method cannot do
        let method = Method::Winograd(Square::Two);
        assert!(Packed::new(SHAPE, method, stored, None, isa).is_err());
        let (shape, levels) = (Shape { c_out: 16, c_in: 16, ..SHAPE }, QuantParams::new(1.0, 0).unwrap());
        assert!(Packed::new(shape, method, Stored::Float(&[0.1; 256]), None, isa).is_err());
        assert!(Packed8::new(shape, method, (&[1; 256], &[1.0]), None, levels, isa).is_err());
        assert!(Packed8::new(SHAPE, Method::Direct, (&[1; 15], &[1.0; 4]), None, levels, isa).is_err());
        assert!(Packed8::new(SHAPE, Method::Direct, (&[1; 15], &[1.0]), Some(&[0.0]), levels, isa).is_err());
    }
    for square in [Square::Two, Square::Four] {
        assert_eq!(square.work_len(&SHAPE, FAR, FAR), None);
        assert_eq!(square.work_len(&SHAPE, 0, 0), Some(0));
        assert!(!winograd::exact::holds(square, &[1; 9], 0));
    }
    assert_eq!(winograd::suits(&SHAPE, FAR, FAR, 0).count(), 0);
    for (rows, columns) in [(3, 4), (0, 15), (15, 0), (FAR, FAR), (usize::MAX, 1)] {
        assert!(Matrix::new(stored, rows, columns, false, None).is_err());
    }
    assert!(Matrix::new(stored, 5, 3, false, Some(&[0.0; 4])).is_err());
    assert!(Matrix::new(Stored::Eight(&[1; 15], &[1.0; 3]), 5, 3, false, None).is_err());
}

#[test]
fn convolutions_beyond_their_buffers_are_refused() {
    let (input, output) = (view(3, 4, 4), view(5, 4, 4).with_start(48).unwrap());
    let overlapping = ImageView::new(Extent { row: 0, ..extent(5, 4, 4) }).unwrap();
    let kinds = Isa::available();
    for &isa in &kinds {
        let packed = packed(SHAPE, isa);
        let run = |input, output, residual, extra, len: usize| {
            let run = Run { packed: &packed, extra, input, output, residual };
            refused(len, 0, |memory| crate::convolve(isa, &run, Part::WHOLE, &mut [], memory))
        };
        assert!(!run(input, output, None, None, 128));
        // one number less, or one of the pictures elsewhere or of other sizes
        assert!(run(input, output, None, None, 127));
        assert!(run(input.with_start(81).unwrap(), output, None, None, 128));
        assert!(run(view(4, 4, 4), output, None, None, 1000) && run(view(3, 3, 4), output, None, None, 1000));
        assert!(run(input, view(6, 4, 4), None, None, 1000) && run(input, view(5, 5, 4), None, None, 1000));
        assert!(run(input, output, Some(view(5, 3, 4)), None, 1000));
        assert!(run(input, output, Some(output.with_start(49).unwrap()), None, 128));
        assert!(run(input, output, None, Some(&[0.0; 4]), 1000));
        // threads would write the same numbers
        assert!(run(input, overlapping, None, None, 1000));
        // a border that the input does not have
        let shape = Shape { kernel: [3, 3], padding: [1, 1], ..SHAPE };
        let padded = self::packed(shape, isa);
        let run = Run { packed: &padded, extra: None, input, output, residual: None };
        assert!(refused(1000, 0, |memory| crate::convolve(isa, &run, Part::WHOLE, &mut [], memory)));
        // weights that are packed for other vectors
        for &other in kinds.iter().filter(|other| other.tile() != isa.tile()) {
            let run = Run { packed: &packed, extra: None, input, output, residual: None };
            assert!(refused(128, 0, |memory| crate::convolve(other, &run, Part::WHOLE, &mut [], memory)));
        }
    }
}

#[test]
fn pools_and_pictures_of_other_sizes_beyond_their_buffers_are_refused() {
    let (input, output) = (view(5, 4, 4), view(5, 2, 2).with_start(80).unwrap());
    let side = pool::Side { kernel: 2, stride: 2, dilation: 1, before: 0, after: 0 };
    let taps = || resample::Taps::new(1, vec![(0, 1.0), (3, 1.0)]).unwrap();
    let packed =
        depthwise::Packed::new(Shape { stride: [2, 2], ..Shape::plain(5, 1, [2, 2], [0, 0]) }, &[0.1; 20], None);
    let packed = packed.unwrap();
    for isa in Isa::available() {
        let pool = |side: pool::Side, input, output, len| {
            refused(len, 0, |m| crate::pool(isa, [side, side], pool::Pooling::Max, input, output, Part::WHOLE, m))
        };
        assert!(!pool(side, input, output, 100) && pool(side, input, output, 99));
        assert!(pool(pool::Side { stride: 4, ..side }, input, output, 100));
        assert!(pool(pool::Side { dilation: 0, ..side }, input, output, 100));
        assert!(pool(pool::Side { before: 2, ..side }, input, output, 100));
        assert!(pool(pool::Side { stride: usize::MAX, ..side }, input, output, 100));
        assert!(pool(side, view(4, 4, 4), output, 1000) && pool(side, input.with_start(21).unwrap(), output, 100));
        let resample = |rows: &resample::Taps, input, output, len| {
            refused(len, 0, |m| crate::resample(isa, rows, &taps(), input, output, Part::WHOLE, m))
        };
        assert!(!resample(&taps(), input, output, 100) && resample(&taps(), input, output, 99));
        let far = resample::Taps::new(1, vec![(0, 1.0), (4, 1.0)]).unwrap();
        let more = resample::Taps::new(1, vec![(0, 1.0); 3]).unwrap();
        assert!(resample(&far, input, output, 100) && resample(&more, input, output, 100));
        let sampling = grid::Sampling {
            interpolation: grid::Interpolation::Cubic,
            padding: grid::Padding::Zeros,
            align_corners: false,
        };
        let sampled =
            |at, output, len| refused(len, 0, |m| crate::sample_grid(isa, sampling, input, at, output, Part::WHOLE, m));
        assert!(!sampled(0, output, 100) && sampled(0, output, 99) && sampled(93, output, 100));
        assert!(sampled(0, view(4, 2, 2), 1000));
        let depthwise = |input, output, residual, extra, len| {
            let run = depthwise::Run { packed: &packed, extra, input, output, residual };
            refused(len, 0, |m| crate::convolve_depthwise(isa, &run, Part::WHOLE, m))
        };
        assert!(!depthwise(input, output, None, None, 100) && depthwise(input, output, None, None, 99));
        assert!(
            depthwise(view(5, 3, 4), output, None, None, 1000) && depthwise(input, view(5, 3, 2), None, None, 1000)
        );
        assert!(depthwise(input, output, Some(view(4, 2, 2)), None, 1000));
        assert!(depthwise(input, output, None, Some(&[0.0; 4]), 1000));
    }
    assert!(resample::Taps::new(2, vec![(0, 1.0); 3]).is_err() && resample::Taps::new(0, vec![]).is_err());
}

#[test]
fn winograds_method_is_refused_too_little_room() {
    let shape = Shape::plain(16, 16, [3, 3], [1, 1]);
    let mut layout = Layout::default();
    let input = layout.place([16, 4, 4], [1, 1]).unwrap();
    let (output, len) = (layout.place([16, 4, 4], [0, 0]).unwrap(), layout.len());
    for isa in Isa::available() {
        let method = Method::Winograd(Square::Four);
        let packed = Packed::new(shape, method, Stored::Float(&[0.1; 16 * 16 * 9]), None, isa).unwrap();
        let run = Run { packed: &packed, extra: None, input, output, residual: None };
        let mut work = vec![0.0; method.work_len(&shape, 4, 4).unwrap()];
        assert!(!refused(len, 0, |memory| crate::convolve(isa, &run, Part::WHOLE, &mut work, memory)));
        let short = work.len() - 1;
        assert!(refused(len, 0, |memory| crate::convolve(isa, &run, Part::WHOLE, &mut work[..short], memory)));
        assert!(refused(len - 1, 0, |memory| crate::convolve(isa, &run, Part::WHOLE, &mut work, memory)));
    }
}

#[test]
fn eight_bit_convolutions_beyond_their_buffers_are_refused() {
    let levels = QuantParams::new(1.0, 0).unwrap();
    // three channels, of which four are read
    let input = ImageView::new(Extent { pixel: 4, row: 16, ..extent(3, 4, 4) }).unwrap();
    let output = view(5, 4, 4);
    for isa in Isa::available() {
        let packed = Packed8::new(SHAPE, Method::Direct, (&[1; 15], &[1.0]), None, levels, isa).unwrap();
        let run = |input, output, len, bytes| {
            let (round, extra, residual) = (None, None, None);
            let run = Run8 { packed: &packed, round, extra, input, output: Some(output), output8: None, residual };
            refused(len, bytes, |memory| crate::convolve8(isa, &run, Part::WHOLE, &mut [], memory))
        };
        assert!(!run(input, output, 80, 64));
        // the fourth channel of the last pixel is not there
        assert!(run(input, output, 80, 63) && run(input, output, 79, 64));
        assert!(run(input.with_start(1).unwrap(), output, 80, 100));
        assert!(run(view(3, 4, 4), output, 80, 100));
        assert!(run(input, view(5, 5, 4), 100, 64) && run(view(3, 1, 1), view(5, 1, 1), 80, 64));
        let run = Run8 {
            packed: &packed,
            round: None,
            extra: None,
            input,
            output: None,
            output8: Some((ImageView::new(Extent { pixel: 4, row: 16, ..extent(5, 4, 4) }).unwrap(), levels)),
            residual: None,
        };
        // pixels that overlap
        assert!(refused(0, 100, |memory| crate::convolve8(isa, &run, Part::WHOLE, &mut [], memory)));
    }
}

#[test]
fn pictures_beyond_their_buffers_are_refused() {
    let picture = view(3, 2, 2);
    let levels = QuantParams::new(1.0, 0).unwrap();
    let (scale, shift) = ([1.0; 3], [0.0; 3]);
    for isa in Isa::available() {
        let map = |op, input, output, len, bytes| {
            refused(len, bytes, |memory| crate::map(isa, op, input, output, Part::WHOLE, memory))
        };
        assert!(!map(Map::Copy, picture, Output::Quantized(picture, levels), 12, 12));
        assert!(map(Map::Copy, picture, Output::Quantized(picture, levels), 12, 11));
        assert!(map(Map::Copy, picture, Output::Float(picture), 11, 0));
        assert!(map(Map::Silu, picture, Output::Float(view(4, 2, 2)), 100, 0));
        assert!(map(Map::Add(picture.with_start(1).unwrap()), picture, Output::Float(picture), 12, 0));
        let large = view(3, 4, 4);
        let upsample =
            |input, output, len| refused(len, 0, |memory| crate::upsample(isa, input, output, Part::WHOLE, memory));
        assert!(!upsample(picture, large.with_start(12).unwrap(), 60));
        assert!(upsample(picture, large, 47) && upsample(picture, view(3, 4, 5), 100));
        let norm = |groups, scale: &[f32], len, work: usize| {
            let norm = GroupNorm { groups, epsilon: 1e-5, scale, shift: &shift, silu: false };
            let (to, mut work) = (Output::Float(picture), vec![0.0; work]);
            refused(len, 0, |memory| crate::normalize(isa, &norm, picture, to, Part::WHOLE, &mut work, memory))
        };
        assert!(!norm(3, &scale, 12, 6));
        assert!(norm(0, &scale, 12, 6) && norm(2, &scale, 12, 6) && norm(3, &scale[1..], 12, 6));
        assert!(norm(3, &scale, 11, 6) && norm(3, &scale, 12, 5));
        let attention = Attention::new([picture; 4], 3, 1.0).unwrap();
        let attend = |mask: Option<&[f32]>, work: usize, len| {
            let mut work = vec![0.0; work];
            refused(len, 0, |memory| crate::attend(isa, &attention, mask, Part::WHOLE, &mut work, memory))
        };
        let work = attention.work_len();
        assert!(!attend(None, work, 12) && !attend(Some(&[0.0; 16]), work, 12));
        assert!(attend(None, work, 11) && attend(None, work - 1, 12) && attend(Some(&[0.0; 15]), work, 12));
        let matrix = Matrix::new(Stored::Float(&[0.1; 15]), 5, 3, false, None).unwrap();
        for (x, out) in [(2, 5), (4, 5), (3, 4), (3, 6)] {
            let run = || crate::multiply(isa, &matrix, &vec![1.0; x], &mut vec![0.0; out]);
            assert!(catch_unwind(run).is_err());
        }
    }
}

#[test]
fn values_beyond_their_buffers_are_refused() {
    let strides: &[usize] = &[4, 1];
    let two = StridedLoops::<2>::new(&[3, 4], [(0, strides), (12, strides)]).unwrap();
    let three = StridedLoops::<3>::new(&[3, 4], [(0, strides), (12, strides), (24, strides)]).unwrap();
    // the rows of the result overlap
    let overlapping = StridedLoops::<2>::new(&[3, 4], [(0, &[2, 1]), (12, strides)]).unwrap();
    for isa in Isa::available() {
        let unary = |loops: &StridedLoops<2>, len| {
            refused(len, 0, |memory| crate::unary(isa, Unary::Negate, loops, Part::WHOLE, memory))
        };
        assert!(!unary(&two, 24) && unary(&two, 23) && unary(&overlapping, 24));
        let binary = |len| refused(len, 0, |memory| crate::binary(isa, Binary::Add, &three, Part::WHOLE, memory));
        assert!(!binary(36) && binary(35));
        // three results of four numbers each
        let results = |to: usize| StridedLoops::<2>::new(&[3], [(to, &[1]), (12, &[4])]).unwrap();
        let inner = |start: usize, n: usize| StridedLoops::<1>::new(&[n], [(start, &[1])]).unwrap();
        let reduce = |loops: StridedLoops<2>, inner: StridedLoops<1>, len| {
            refused(len, 0, |memory| crate::reduce(isa, Reduction::Mean, &loops, &inner, Part::WHOLE, memory))
        };
        assert!(!reduce(results(0), inner(0, 4), 24) && reduce(results(0), inner(0, 4), 23));
        assert!(reduce(results(22), inner(0, 4), 24) && reduce(results(0), inner(0, 5), 24));
        assert!(reduce(results(0), inner(1, 4), 100));
        let four = StridedLoops::<4>::new(&[3, 4], [0, 12, 24, 36].map(|start| (start, strides))).unwrap();
        let choose = |len| refused(len, 0, |memory| crate::choose(isa, &four, Part::WHOLE, memory));
        assert!(!choose(48) && choose(47));
        let lines = StridedLoops::<2>::new(&[3], [(0, &[4]), (12, &[4])]).unwrap();
        let layer = RowOp::LayerNorm { epsilon: 1e-5, scale: vec![1.0; 4], shift: vec![0.0; 4] };
        let rows =
            |f: &RowOp, length, len| refused(len, 0, |memory| crate::rows(isa, f, &lines, length, Part::WHOLE, memory));
        assert!(!rows(&layer, 4, 24) && rows(&layer, 4, 23) && rows(&layer, 3, 24));
        let root = RowOp::RmsNorm { epsilon: 1e-5, scale: vec![1.0; 4] };
        assert!(!rows(&root, 4, 24) && rows(&root, 4, 23) && rows(&root, 3, 24));
        assert!(
            rows(&RowOp::Softmax, 5, 100) && rows(&RowOp::Softmax, 0, 100) && rows(&RowOp::Softmax, usize::MAX, 100)
        );
        let batch = StridedLoops::<3>::new(&[2], [(0, &[6]), (12, &[4]), (20, &[6])]).unwrap();
        let product = MatMul::new(batch, [2, 3, 2], [[3, 1], [2, 1], [3, 1]]).unwrap();
        let multiply =
            |work: usize, len| refused(len, 0, |m| crate::matmul(isa, &product, Part::WHOLE, &mut vec![0.0; work], m));
        let work = product.work_len();
        assert!(!multiply(work, 32) && multiply(work, 31) && multiply(work - 1, 32));
    }
    assert!(refused(10, 10, |memory| memory.fill(8, 3, 0.0)) && refused(10, 10, |m| m.fill(11, usize::MAX, 0.0)));
    assert!(refused(10, 10, |memory| memory.fill_bytes(8, 3, 0)) && refused(10, 10, |m| m.read(9, &mut [0.0; 2])));
}
