//! Which operations become part of the step of one before them.

use super::{Compiler, Layout8, Stage};
use crate::lower::Operand;
use crate::ops::Fusion;
use crate::place::Slice;
use crate::reason::Reason;
use kernels::arena::StridedView;
use kernels::conv8::QuantParams;

/// Who reads a value: convolutions in 8 bits, linear layers in 8 bits, and others in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    pub image_8bit: bool,
    pub rows_8bit: bool,
    pub float: bool,
}

/// Sums that a step makes with its result, and the name of the value that it then makes.
pub struct Sums<'a> {
    /// The value.
    pub out: &'a str,
    /// What is added to each channel.
    pub bias: Option<Slice>,
    /// What is added to each number.
    pub residual: Option<StridedView>,
}

impl<'a> Compiler<'_, 'a> {
    /// How the value `name` is read.
    pub fn readers(&self, name: &str) -> Readers {
        let Some(readers) = self.consumers.get(name) else { return Readers { float: true, ..Readers::default() } };
        let mut all = Readers { float: self.is_result(name), ..Readers::default() };
        for j in readers {
            let reader = &self.ops[*j];
            // 8-bit values are not remembered from one stage to the next
            let same_stage = self.stages.get(reader.out) == self.stages.get(name);
            match reader.op.reads_8bit(self, name).filter(|_| same_stage) {
                Some(Layout8::Image) => all.image_8bit = true,
                Some(Layout8::Rows) => all.rows_8bit = true,
                None => all.float = true,
            }
        }
        all
    }

    /// The operation that alone reads `name`, if it has no step yet.
    fn sole_consumer(&self, name: &str) -> Option<usize> {
        match self.consumers.get(name)?.as_slice() {
            [one] if !self.done[*one] && !self.is_result(name) => Some(*one),
            _ => None,
        }
    }

    /// The rounding that alone reads `name`: the operation's number, what it makes, and what it rounds to.
    pub fn sole_rounding(&self, name: &str) -> Option<(usize, &'a str, QuantParams)> {
        let j = self.sole_consumer(name)?;
        let Fusion::Round(params) = self.ops[j].op.fusion() else { return None };
        Some((j, self.ops[j].out, params))
    }

    /// Makes the operation of this number part of the step that is being compiled.
    pub fn fuse(&mut self, operation: usize) {
        self.done[operation] = true;
    }

    /// Makes SiLU part of the step, if it alone reads `out`: what is made then.
    pub fn fuse_silu(&mut self, out: &'a str) -> Option<&'a str> {
        let j = self.sole_consumer(out).filter(|j| matches!(self.ops[*j].op.fusion(), Fusion::Silu))?;
        self.fuse(j);
        Some(self.ops[j].out)
    }

    /// Makes sums with what is known already part of the step, where they alone read the result of a convolution or linear
    /// layer whose channels are dimension `axis`.
    pub fn fuse_sums(&mut self, mut out: &'a str, axis: usize) -> Result<Sums<'a>, Reason> {
        let (mut bias, mut residual) = (None, None);
        while let Some(j) = self.sole_consumer(out) {
            let Fusion::Add(Operand::Value(a), Operand::Value(b)) = self.ops[j].op.fusion() else { break };
            let other = if *a == out { b } else { a };
            self.bring(other)?;
            let (dims, place) = (self.dims(out)?, self.made(other).or_else(|| self.made_before(other)));
            let Some(place) = place.filter(|_| self.dims(self.ops[j].out).is_ok_and(|d| d == dims) && a != b) else {
                break;
            };
            let from_end = dims.len() - axis;
            let of_channel = place.len() == dims[axis]
                && place.dims.len() >= from_end
                && place.dims[place.dims.len() - from_end] == dims[axis];
            match place.run() {
                Some(start) if of_channel && bias.is_none() && self.stages[other] < Stage::Sample => {
                    bias = Some(Slice { start, len: dims[axis] });
                }
                _ if place.dims == dims && residual.is_none() && place.precision == self.precision => {
                    residual = Some(place.clone());
                }
                _ => break,
            }
            self.fuse(j);
            out = self.ops[j].out;
        }
        Ok(Sums { out, bias, residual })
    }

    /// Whether the value `x`, which lies at `place`, is read for the last time now, and may make room for `out`.
    pub fn yields(&self, x: &str, out: &str, place: &StridedView) -> bool {
        let readers = self.consumers.get(x).map_or(0, Vec::len);
        let border = self.borders.get(out).copied().unwrap_or_default();
        let owner = self.owners.contains(x) && !self.parts.contains_key(x);
        let fits = place.border[0] >= border[0] && place.border[1] >= border[1] && !self.parts.contains_key(out);
        readers == 1 && !self.is_result(x) && owner && fits && self.stages.get(x) == Some(&Stage::Sample)
    }
}
