//! The steps of each operation, and those that become one.

use super::{Compiler, Lie, Readers, Stage, sides, stored8};
use crate::constant::{Constant, broadcast_strides};
use crate::graph::Reason;
use crate::lower::{Matrices, Named, Op, Operand, Rearrange, pair};
use crate::plan::{Slot, Step};
use kernels::arena::{Place, View};
use kernels::attention::Attention;
use kernels::dense::{self, Map};
use kernels::general::{Binary, Product, Rows, Unary};
use kernels::weights::Stored;
use kernels::{conv, conv8, winograd};
use std::borrow::Cow;

impl<'a> Compiler<'a> {
    /// Emits an operation.
    pub(super) fn emit(&mut self, i: usize, named: &'a Named<'a>) -> Result<(), Reason> {
        self.done[i] = true;
        self.stage = self.stages[named.out];
        let place = match &named.op {
            Op::Convolution { x, weights, bias, stride, padding } => {
                let kernel = pair(&weights.dims[2..], 1).ok_or("a kernel of more than two dimensions")?;
                let shape = conv::Shape {
                    c_out: weights.dims[0],
                    c_in: weights.dims[1],
                    kernel,
                    stride: *stride,
                    padding: *padding,
                };
                if let Some((stored, (levels, input))) = stored8(weights, 0).zip(self.input8(x, Lie::Picture)) {
                    return self.convolution8(named.out, shape, stored, *bias, levels, (input, Lie::Picture));
                }
                let input = self.view(x, *padding)?;
                return self.convolution(
                    named.out,
                    shape,
                    (&weights.values.decoded(), stored8(weights, 0)),
                    *bias,
                    input,
                );
            }
            Op::Transposed { x, weights, bias, stride, padding } => {
                return self.transposed(named.out, x, weights, *bias, *stride, *padding);
            }
            Op::Linear { x, weights, by_column, bias } => return self.linear(named.out, x, weights, *by_column, *bias),
            Op::Norm { x, groups, epsilon, scale, shift } => {
                return self.norm(named.out, x, (*groups, *epsilon), (scale, shift));
            }
            Op::Layer { x, epsilon, scale, shift } => {
                let f = Rows::Layer { epsilon: *epsilon, scale: scale.clone(), shift: shift.clone() };
                self.each_row(f, x)?
            }
            Op::Softmax { x } => self.each_row(Rows::Softmax, x)?,
            Op::Unary { f, x } => {
                let input = self.value(x)?;
                let output =
                    if self.yields(x, named.out, &input) { input.clone() } else { self.like(named.out, &input)? };
                match (f, input.view(), output.view()) {
                    (Unary::Silu, Some(input), Some(to)) => {
                        self.push(Step::Map { op: Map::Silu, input, output: dense::Output::Float(to) });
                    }
                    _ => {
                        let loops = self.loops([&output, &input])?;
                        self.push(Step::Unary { f: *f, loops });
                    }
                }
                output
            }
            Op::Binary { f, a, b } => {
                let inputs = [self.operand(a)?, self.operand(b)?];
                let dims = self.dims(named.out)?;
                let whole = |k: usize| inputs[k].dims == dims;
                let yields = |k: usize, o: &Operand| {
                    let Operand::Value(name) = o else { return false };
                    whole(k) && self.yields(name, named.out, &inputs[k])
                };
                let output = match () {
                    () if yields(0, a) => inputs[0].clone(),
                    () if yields(1, b) => inputs[1].clone(),
                    () => self.like(named.out, &inputs[usize::from(!whole(0) && whole(1))])?,
                };
                let views = [inputs[0].view(), inputs[1].view(), output.view()];
                match (f, views) {
                    (Binary::Add, [Some(input), Some(other), Some(to)]) if whole(0) && whole(1) => {
                        self.push(Step::Map { op: Map::Add(other), input, output: dense::Output::Float(to) });
                    }
                    _ => {
                        let loops = self.loops([&output, &inputs[0], &inputs[1]])?;
                        self.push(Step::Binary { f: *f, loops });
                    }
                }
                output
            }
            Op::Product { a, b, order } => self.product(named.out, a, b, order)?,
            Op::Attention { q, k, v, scale, mask, order } => {
                self.attention(named.out, [q, k, v], *scale, mask.as_deref(), order)?
            }
            Op::Alias { x, how } => self.alias(named.out, x, how)?,
            Op::Concat { parts, axis } => self.concat(named.out, parts, *axis)?,
            Op::Rows { table, index } => {
                let index_place = self.value(index)?;
                let index_place = self.together(&index_place, |p| p.run().is_some())?;
                let output = self.row_major(self.dims(named.out)?);
                let len = table.dims[1..].iter().product::<usize>().max(1);
                if self.class == Some(*index) {
                    self.classes = Some(self.classes.map_or(table.dims[0], |c| c.min(table.dims[0])));
                }
                self.push(Step::Rows {
                    table: table.values.to_vec(),
                    len,
                    index: Slot { start: index_place.start, len: index_place.len() },
                    to: Slot { start: output.start, len: output.len() },
                });
                output
            }
            Op::Reduce { x, f, axes } => {
                let input = self.value(x)?;
                let mut dims = input.dims.clone();
                axes.iter().for_each(|a| dims[*a] = 1);
                let output = self.row_major(&dims);
                let mut spread = output.clone();
                spread.dims.clone_from(&input.dims);
                axes.iter().for_each(|a| spread.strides[*a] = 0);
                let (loops, out) = (self.loops([&spread, &input])?, self.loops([&output])?);
                self.push(Step::Reduce { f: *f, loops, out });
                output.reshaped(self.dims(named.out)?).ok_or("a reduction's result")?
            }
            Op::Upsample { x, factors: [fy, fx] } => {
                let (input, output) = (self.view(x, [0, 0])?, self.picture(named.out)?);
                let to = output.view().ok_or("no picture")?;
                if (*fy, *fx) == (2, 2) {
                    self.push(Step::Upsample { input, output: to });
                    self.places.insert(named.out, output);
                    return Ok(());
                }
                let dims = vec![input.h, *fy, input.w, *fx, input.c];
                let strides = vec![fy * to.row, to.row, fx * to.pixel, to.pixel, 1];
                let to = Place { start: to.start, dims: dims.clone(), strides, border: [0, 0] };
                let strides = vec![input.row, 0, input.pixel, 0, 1];
                self.copy(&Place { start: input.start, dims, strides, border: [0, 0] }, &to)?;
                output
            }
            Op::Pool { x, kernel, stride } => {
                let (input, output) = (self.view(x, [0, 0])?, self.picture(named.out)?);
                let to = output.view().ok_or("no picture")?;
                self.push(Step::Pool { kernel: *kernel, stride: *stride, input, output: to });
                output
            }
            Op::Pad { x, before } => {
                let input = self.value(x)?;
                let output = self.like(named.out, &input)?;
                let parts: Vec<(usize, usize)> = before.iter().map(|b| (*b, 1)).collect();
                let inside = output.sliced(&parts, &input.dims);
                let storage = self.memory.storages()[self.memory.storage_at(output.start)];
                if self.parts.contains_key(named.out) {
                    return Err("a padded value in a concatenation".into());
                }
                self.push(Step::Clear { to: Slot { start: storage.start, len: storage.len } });
                self.copy(&input, &inside)?;
                output
            }
            Op::Round { x, levels } => return self.round(named.out, x, *levels),
        };
        self.places.insert(named.out, place);
        Ok(())
    }

    /// Adds of what is known already, that alone read the result of a convolution or linear layer: the name of what is
    /// left then, what is added to each channel, and what to each number. Channels are dimension `axis`.
    fn sums(&mut self, mut out: &'a str, axis: usize) -> Result<(&'a str, Option<Slot>, Option<Place>), Reason> {
        let (mut extra, mut residual) = (None, None);
        while let Some(j) = self.sole_consumer(out) {
            let Op::Binary { f: Binary::Add, a: Operand::Value(a), b: Operand::Value(b) } = &self.ops[j].op else {
                break;
            };
            let other = if *a == out { b } else { a };
            let (dims, place) = (self.dims(out)?, self.places.get(other));
            let Some(place) = place.filter(|_| self.dims(self.ops[j].out).is_ok_and(|d| d == dims) && a != b) else {
                break;
            };
            let from_end = dims.len() - axis;
            let of_channel = place.len() == dims[axis]
                && place.dims.len() >= from_end
                && place.dims[place.dims.len() - from_end] == dims[axis];
            match place.run() {
                Some(start) if of_channel && extra.is_none() && self.stages[other] < Stage::Sample => {
                    extra = Some(Slot { start, len: dims[axis] });
                }
                _ if place.dims == dims && residual.is_none() => residual = Some(place.clone()),
                _ => break,
            }
            self.done[j] = true;
            out = self.ops[j].out;
        }
        if let Some(slot) = extra {
            self.extra_len = self.extra_len.max(slot.len);
        }
        Ok((out, extra, residual))
    }

    /// A convolution, with the sums that alone read its result.
    fn convolution(
        &mut self,
        out: &'a str,
        shape: conv::Shape,
        weights: (&[f32], Option<Eight>),
        bias: Option<&Constant>,
        input: View,
    ) -> Result<(), Reason> {
        let (out, extra, residual) = self.sums(out, 1)?;
        let residual = residual.map(|r| self.as_view(&r)).transpose()?;
        let place = self.picture(out)?;
        let output = place.view().ok_or("no picture")?;
        self.convolve(shape, weights, bias, (input, output), extra, residual)?;
        self.places.insert(out, place);
        Ok(())
    }

    /// A value as a picture, copied if it does not lie as one.
    fn as_view(&mut self, place: &Place) -> Result<View, Reason> {
        if let Some(view) = place.view() {
            return Ok(view);
        }
        let view = self.memory.place(sides(&place.dims)?, [0, 0]);
        self.copy(place, &Place::of_view(view, &place.dims))?;
        Ok(view)
    }

    /// A value as rows, copied if it does not lie so.
    fn as_rows(&mut self, place: &Place) -> Result<View, Reason> {
        Ok(self.together(place, |p| p.rows().is_some())?.rows().ok_or("no rows")?)
    }

    fn convolve(
        &mut self,
        shape: conv::Shape,
        weights: (&[f32], Option<Eight>),
        bias: Option<&Constant>,
        (input, output): (View, View),
        extra: Option<Slot>,
        residual: Option<View>,
    ) -> Result<(), Reason> {
        if bias.is_some_and(|b| b.values.len() != shape.c_out) {
            return Err("the bias does not fit".into());
        }
        let tile = self.isa.tile();
        let (floats, eight) = weights;
        let (method, weights) = match winograd::suits(&shape, output.h, output.w, winograd::float::MANY).next() {
            Some(square) => (conv::Method::Winograd(square), Stored::Float(floats)),
            None => (conv::Method::Direct, eight.map_or(Stored::Float(floats), |(all, of)| Stored::Eight(all, of))),
        };
        self.work_len = self.work_len.max(method.work_len(&shape, output.h, output.w));
        let packed = conv::Packed::new(shape, method, weights, bias.map(|b| b.values.as_slice()), tile);
        self.push(Step::Convolution { packed, extra, input, output, residual });
        Ok(())
    }

    /// The levels and the place of a value that is there in 8 bits.
    fn input8(&self, x: &'a str, lie: Lie) -> Option<(conv8::Levels, View)> {
        self.levels.get(x).copied().zip(self.views8.get(&(x, lie)).copied())
    }

    /// An 8-bit convolution, or linear layer, with the rounding and the sums that alone read its result, which lies as
    /// the input does.
    fn convolution8(
        &mut self,
        out: &'a str,
        shape: conv::Shape,
        (weights, scales): (&[i8], &[f32]),
        bias: Option<&Constant>,
        levels: conv8::Levels,
        (input, lie): (View, Lie),
    ) -> Result<(), Reason> {
        if bias.is_some_and(|b| b.values.len() != shape.c_out) {
            return Err("the bias does not fit".into());
        }
        let lies_alike = |r: Readers| if lie == Lie::Picture { !r.rows8 } else { !r.picture8 };
        let mut out = out;
        let rounding = self.sole_rounding(out).filter(|(j, _)| lies_alike(self.readers(self.ops[*j].out)));
        if let Some((j, _)) = rounding {
            self.done[j] = true;
            out = self.ops[j].out;
        }
        let round = rounding.map(|(_, levels)| levels);
        let (rounded, readers) = (out, self.readers(out));
        let eight = round.filter(|_| readers.picture8 || readers.rows8);
        let (mut extra, mut residual) = (None, None);
        if eight.is_none() {
            let axis = if lie == Lie::Picture { 1 } else { self.dims(out)?.len() - 1 };
            (out, extra, residual) = self.sums(out, axis)?;
        }
        let lying = |r: Place| if lie == Lie::Picture { self.as_view(&r) } else { self.as_rows(&r) };
        let residual = residual.map(lying).transpose()?;
        // what is only read in 8 bits needs no f32
        let output = match lie {
            _ if !readers.float && eight.is_some() => None,
            Lie::Picture => Some(self.picture(out)?),
            Lie::Rows => Some(self.row_major(self.dims(out)?)),
        };
        let output8 = match eight {
            Some(levels) => Some((self.place8(rounded, levels, lie)?, levels)),
            None => None,
        };
        let view = output.as_ref().and_then(|place| if lie == Lie::Picture { place.view() } else { place.rows() });
        let to = view.or(output8.map(|(view, _)| view)).ok_or("a convolution without a result")?;
        let method = conv8::method(self.isa, &shape, weights, [to.h, to.w]);
        self.work_len = self.work_len.max(method.work_len(&shape, to.h, to.w));
        let bias = bias.map(|b| b.values.as_slice());
        let packed = conv8::Packed8::new(shape, method, (weights, scales), bias, levels, self.isa)?;
        self.push(Step::Convolution8 { packed, round, extra, input, output: view, output8, residual });
        self.places.extend(output.map(|place| (out, place)));
        Ok(())
    }

    /// A transposed convolution: the input with zeros between its pixels, convolved with the turned kernel.
    fn transposed(
        &mut self,
        out: &'a str,
        x: &'a str,
        weights: &Constant,
        bias: Option<&Constant>,
        [sy, sx]: [usize; 2],
        padding: [usize; 2],
    ) -> Result<(), Reason> {
        let (c_in, c_out, kernel) = (
            weights.dims[0],
            weights.dims[1],
            pair(&weights.dims[2..], 1).ok_or("a kernel of more than two dimensions")?,
        );
        let input = self.view(x, [0, 0])?;
        let [_, h, w] = sides(self.dims(out)?)?;
        let border = [kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]];
        // as many pixels as give the result's sides, some of them beyond the last of the input
        let wide =
            self.memory.place([c_in, h + kernel[0] - 1 - 2 * border[0], w + kernel[1] - 1 - 2 * border[1]], border);
        let storage = self.memory.storages()[self.memory.storage_at(wide.start)];
        self.push(Step::Clear { to: Slot { start: storage.start, len: storage.len } });
        let dims = vec![input.h, input.w, c_in];
        let strides = vec![sy * wide.row, sx * wide.pixel, 1];
        let to = Place { start: wide.start, dims: dims.clone(), strides, border: [0, 0] };
        let strides = vec![input.row, input.pixel, 1];
        self.copy(&Place { start: input.start, dims, strides, border: [0, 0] }, &to)?;
        let taps = kernel[0] * kernel[1];
        let values = weights.values.decoded();
        let turned = |o: usize, c: usize, tap: usize| values[(c * c_out + o) * taps + taps - 1 - tap];
        let turned: Vec<f32> = (0..c_out)
            .flat_map(|o| (0..c_in).flat_map(move |c| (0..taps).map(move |tap| (o, c, tap))))
            .map(|(o, c, tap)| turned(o, c, tap))
            .collect();
        let shape = conv::Shape { c_out, c_in, kernel, stride: 1, padding: border };
        self.convolution(out, shape, (&turned, None), bias, wide)
    }

    /// A linear layer: a matrix times a vector, or a convolution of pixels that stand in a row.
    fn linear(
        &mut self,
        out: &'a str,
        x: &'a str,
        weights: &Constant,
        by_column: bool,
        bias: Option<&Constant>,
    ) -> Result<(), Reason> {
        let (k, n) = if by_column { (weights.dims[0], weights.dims[1]) } else { (weights.dims[1], weights.dims[0]) };
        if self.dims(x)?.last() != Some(&k) || bias.is_some_and(|b| b.values.len() != n) {
            return Err("a linear layer that does not fit its input".into());
        }
        let stored = stored8(weights, usize::from(by_column));
        if self.dims(x)?.iter().product::<usize>() == k {
            let input = self.value(x)?;
            let input = self.together(&input, |p| p.run().is_some())?;
            let output = self.row_major(self.dims(out)?);
            let floats = if stored.is_none() { weights.values.decoded() } else { Cow::default() };
            let stored = stored.map_or(Stored::Float(&floats), |(all, scales)| Stored::Eight(all, scales));
            self.push(Step::Matrix {
                matrix: dense::Matrix::new(stored, n, k, by_column, bias.map(|b| b.values.as_slice())),
                from: Slot { start: input.start, len: k },
                to: Slot { start: output.start, len: n },
            });
            self.places.insert(out, output);
            return Ok(());
        }
        let shape = conv::Shape { c_out: n, c_in: k, kernel: [1, 1], stride: 1, padding: [0, 0] };
        let stored = stored.map(|(all, scales)| (by_row(all, n, by_column), scales));
        if let Some(((rows, scales), (levels, input))) = stored.as_ref().zip(self.input8(x, Lie::Rows)) {
            return self.convolution8(out, shape, (rows, scales), bias, levels, (input, Lie::Rows));
        }
        let input = self.value(x)?;
        let input = self.as_rows(&input)?;
        let axis = self.dims(out)?.len() - 1;
        let (out, extra, residual) = self.sums(out, axis)?;
        let residual = residual.map(|r| self.as_rows(&r)).transpose()?;
        let output = self.row_major(self.dims(out)?);
        let floats = if stored.is_none() { weights.values.decoded() } else { Cow::default() };
        let rows = if stored.is_none() { by_row(&floats, n, by_column) } else { Cow::default() };
        let views = (input, output.rows().ok_or("no rows")?);
        let stored = stored.as_ref().map(|(rows, scales)| (rows.as_ref(), *scales));
        self.convolve(shape, (&rows, stored), bias, views, extra, residual)?;
        self.places.insert(out, output);
        Ok(())
    }

    /// Group normalisation, with the SiLU and the rounding that may follow.
    fn norm(
        &mut self,
        out: &'a str,
        x: &'a str,
        (groups, epsilon): (usize, f32),
        (scale, shift): (&[f32], &[f32]),
    ) -> Result<(), Reason> {
        let input = self.view(x, [0, 0])?;
        if scale.len() != input.c || shift.len() != input.c || groups == 0 || !input.c.is_multiple_of(groups) {
            return Err("a group norm that does not fit its input".into());
        }
        let mut out = out;
        let silu = self.sole_consumer(out).filter(|j| matches!(self.ops[*j].op, Op::Unary { f: Unary::Silu, .. }));
        if let Some(j) = silu {
            self.done[j] = true;
            out = self.ops[j].out;
        }
        let only8 = Readers { picture8: true, ..Readers::default() };
        let rounding = self.sole_rounding(out).filter(|(j, _)| self.readers(self.ops[*j].out) == only8);
        let output = match rounding {
            Some((j, levels)) => {
                self.done[j] = true;
                dense::Output::Levels(self.place8(self.ops[j].out, levels, Lie::Picture)?, levels)
            }
            None => {
                let place = self.picture(out)?;
                let view = place.view().ok_or("no picture")?;
                self.places.insert(out, place);
                dense::Output::Float(view)
            }
        };
        self.work_len = self.work_len.max(2 * input.c);
        let (scale, shift) = (scale.to_vec(), shift.to_vec());
        self.push(Step::Norm { groups, epsilon, scale, shift, silu: silu.is_some(), input, output });
        Ok(())
    }

    /// A value rounded to levels: in 8 bits for those who read it so, and in f32 for others.
    fn round(&mut self, out: &'a str, x: &'a str, levels: conv8::Levels) -> Result<(), Reason> {
        let Readers { picture8, rows8, float } = self.readers(out);
        let is_picture = self.value(x)?.view().is_some();
        if picture8 || (float && is_picture && !rows8) {
            let input = self.view(x, [0, 0])?;
            if picture8 {
                let output = dense::Output::Levels(self.place8(out, levels, Lie::Picture)?, levels);
                self.push(Step::Map { op: Map::Copy, input, output });
            }
            if float {
                let place = self.picture(out)?;
                let output = dense::Output::Float(place.view().ok_or("no picture")?);
                self.push(Step::Map { op: Map::Round(levels), input, output });
                self.places.insert(out, place);
            }
        }
        let float = float && !self.places.contains_key(out);
        if rows8 || float {
            let input = self.value(x)?;
            let input = self.as_rows(&input)?;
            if rows8 {
                let output = dense::Output::Levels(self.place8(out, levels, Lie::Rows)?, levels);
                self.push(Step::Map { op: Map::Copy, input, output });
            }
            if float {
                let place = self.row_major(self.dims(out)?);
                let output = dense::Output::Float(place.rows().ok_or("no rows")?);
                self.push(Step::Map { op: Map::Round(levels), input, output });
                self.places.insert(out, place);
            }
        }
        Ok(())
    }

    /// Something to each run of the last dimension.
    fn each_row(&mut self, f: Rows, x: &'a str) -> Result<Place, Reason> {
        let input = self.value(x)?;
        let length = *input.dims.last().ok_or("a number has no rows")?;
        let together = |p: &Place| length == 1 || p.strides.last() == Some(&1);
        let input = self.together(&input, together)?;
        let output = self.row_major(&input.dims);
        let first = |p: &Place| p.leading(p.dims.len() - 1);
        let loops = self.loops([&first(&output), &first(&input)])?;
        self.push(Step::EachRow { f, loops, length });
        Ok(output)
    }

    /// The dimensions of stacked matrices, in the order batch…, row, column.
    fn matrices(&mut self, m: &Matrices<'a>) -> Result<Place, Reason> {
        Ok(self.operand(&m.x)?.permuted(&m.order))
    }

    fn product(&mut self, out: &'a str, a: &Matrices<'a>, b: &Matrices<'a>, order: &[usize]) -> Result<Place, Reason> {
        let (a, b) = (self.matrices(a)?, self.matrices(b)?);
        let dims = self.dims(out)?;
        let ordered: Vec<usize> = order.iter().map(|o| dims[*o]).collect();
        let output = self.row_major(&ordered);
        let split = |p: &Place| {
            let n = p.dims.len() - 2;
            (p.leading(n), [p.strides[n], p.strides[n + 1]], [p.dims[n], p.dims[n + 1]])
        };
        let ((o, so, [rows, columns]), (a, sa, [_, inner]), (b, sb, _)) = (split(&output), split(&a), split(&b));
        let product =
            Product { batch: self.loops([&o, &a, &b])?, sizes: [rows, columns, inner], strides: [so, sa, sb] };
        self.work_len = self.work_len.max(product.work_len());
        self.push(Step::Product(product));
        Ok(output.permuted(&inverse(order)))
    }

    fn attention(
        &mut self,
        out: &'a str,
        operands: [&Matrices<'a>; 3],
        scale: f32,
        mask: Option<&[f32]>,
        order: &[usize],
    ) -> Result<Place, Reason> {
        let mut views = Vec::new();
        let mut sizes = Vec::new();
        for m in operands {
            let place = self.matrices(m)?;
            let n = place.dims.len() - 2;
            let heads: usize = place.dims[..n].iter().product();
            let [rows, c] = [place.dims[n], place.dims[n + 1]];
            let as_view = |p: &Place| {
                let stride = p.leading(n).reshaped(&[heads])?.strides[0];
                let together = (heads == 1 || stride == c) && (c == 1 || p.strides[n + 1] == 1);
                let pixel = p.strides[n];
                together.then_some(View {
                    c: heads * c,
                    h: 1,
                    w: rows,
                    start: p.start,
                    pixel,
                    row: rows * pixel,
                    border: [0, 0],
                })
            };
            let view = match as_view(&place) {
                Some(view) => view,
                None => {
                    // rows first, then heads
                    let turned: Vec<usize> = [n].into_iter().chain(0..n).chain([n + 1]).collect();
                    let from = place.permuted(&turned);
                    let copy = self.row_major(&from.dims);
                    self.copy(&from, &copy)?;
                    as_view(&copy.permuted(&inverse(&turned))).ok_or("heads that are not together")?
                }
            };
            views.push(view);
            sizes.push((heads, place.dims[..n].to_vec()));
        }
        if sizes.iter().any(|s| *s != sizes[0]) {
            return Err("an attention of unlike heads".into());
        }
        let (heads, batch) = sizes.swap_remove(0);
        let [query, key, value] = views[..] else { return Err("an attention of three".into()) };
        let c = value.c / heads;
        let dims: Vec<usize> = [query.w].into_iter().chain(batch.iter().copied()).chain([c]).collect();
        let place = self.row_major(&dims);
        let output = View {
            c: heads * c,
            h: 1,
            w: query.w,
            start: place.start,
            pixel: heads * c,
            row: place.len(),
            border: [0, 0],
        };
        let attention = Attention { query, key, value, output, heads, scale };
        self.work_len = self.work_len.max(attention.work_len());
        if mask.is_some_and(|m| m.len() != query.w * key.w) {
            return Err("a mask that does not fit".into());
        }
        self.push(Step::Attention { attention, mask: mask.map(<[f32]>::to_vec) });
        let n = batch.len();
        let ordered = place.permuted(&(1..=n).chain([0, n + 1]).collect::<Vec<_>>());
        let place = ordered.permuted(&inverse(order));
        if place.dims == self.dims(out)? { Ok(place) } else { Err("an attention of an unknown form".into()) }
    }

    /// A value read anew, where that needs no copy, or else a copy.
    fn alias(&mut self, out: &'a str, x: &'a str, how: &Rearrange) -> Result<Place, Reason> {
        let (place, dims) = (self.value(x)?, self.dims(out)?);
        Ok(match how {
            Rearrange::Permute(perm) => place.permuted(perm),
            Rearrange::Slice(parts) => place.sliced(parts, dims),
            Rearrange::Pick(axis, index) => {
                let Place { start, mut dims, mut strides, .. } = place;
                dims.remove(*axis);
                let start = start + index * strides.remove(*axis);
                Place { start, dims, strides, border: [0, 0] }
            }
            Rearrange::Expand => {
                let strides = broadcast_strides(&place.dims, &place.strides, dims);
                Place { start: place.start, dims: dims.to_vec(), strides, border: [0, 0] }
            }
            Rearrange::Repeat(times) => {
                let (mut split, mut strides) = (Vec::new(), Vec::new());
                for ((d, s), t) in place.dims.iter().zip(&place.strides).zip(times) {
                    split.extend([*t, *d]);
                    strides.extend([0, *s]);
                }
                let all = Place { start: place.start, dims: split, strides, border: [0, 0] };
                self.together(&all, |_| false)?.reshaped(dims).ok_or("a value that cannot be repeated")?
            }
            Rearrange::Reshape => match place.reshaped(dims) {
                Some(place) => place,
                None => self.together(&place, |_| false)?.reshaped(dims).ok_or("a shape that does not fit")?,
            },
            Rearrange::Squares(b, channels_first) => {
                let [_, c, h, w] = *place.dims.as_slice() else { return Err("squares of what is no picture".into()) };
                let c = c / (b * b);
                let (split, turn) = match channels_first {
                    true => ([c, *b, *b, h, w], [0, 3, 1, 4, 2]),
                    false => ([*b, *b, c, h, w], [2, 3, 0, 4, 1]),
                };
                let squares = place.reshaped(&split).ok_or("channels that are not together")?.permuted(&turn);
                if out == self.result && !self.consumers.contains_key(out) {
                    return Ok(squares);
                }
                self.together(&squares, |_| false)?.reshaped(dims).ok_or("squares that do not fit")?
            }
        })
    }

    fn concat(&mut self, out: &'a str, parts: &[Operand<'a>], axis: usize) -> Result<Place, Reason> {
        let dims = self.dims(out)?;
        let whole = match self.places.get(out) {
            // made with the first of its parts
            Some(place) => place.clone(),
            None if axis == 1 && dims[0] == 1 && (3..=4).contains(&dims.len()) && self.stage == Stage::Sample => {
                self.picture(out)?
            }
            None => self.row_major(dims),
        };
        let mut first = 0;
        for part in parts {
            let from = self.operand(part)?;
            let mut slices = vec![(0, 1); dims.len()];
            slices[axis].0 = first;
            let to = whole.sliced(&slices, &from.dims);
            let there =
                from.start == to.start && (0..dims.len()).all(|d| dims[d] == 1 || from.strides[d] == to.strides[d]);
            if !there {
                self.copy(&from, &to)?;
            }
            first += from.dims[axis];
        }
        Ok(whole)
    }
}

/// A matrix of n rows, row by row.
fn by_row<T: Copy>(all: &[T], n: usize, by_column: bool) -> Cow<'_, [T]> {
    if !by_column {
        return all.into();
    }
    (0..n).flat_map(|r| all.iter().skip(r).step_by(n).copied()).collect()
}

/// 8-bit weights, and what those of each output channel are multiplied with, or all.
type Eight<'c> = (&'c [i8], &'c [f32]);

/// The order that undoes an order.
fn inverse(order: &[usize]) -> Vec<usize> {
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    back
}
