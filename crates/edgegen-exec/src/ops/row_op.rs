//! A step that does something to each row of numbers that lie together: softmax and layer norm.

use super::Operation;
use crate::compile::Compiler;
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::general::RowOp;

/// Something to each row of the last dimension.
pub struct RowOperation<'a> {
    pub x: &'a str,
    pub function: RowOp,
}

impl<'a> Operation<'a> for RowOperation<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let length = *input.dims.last().ok_or("a number has no rows")?;
        let input = c.contiguous(&input, |p| length == 1 || p.strides.last() == Some(&1))?;
        let output = c.row_major(&input.dims)?;
        // the rows, as matrices of one row
        let rows = |p: &kernels::arena::StridedView| {
            let mut rows = p.clone();
            rows.dims.insert(rows.dims.len() - 1, 1);
            rows.strides.insert(rows.strides.len() - 1, 0);
            *rows.strides.last_mut().expect("a row") = 1;
            rows
        };
        let [to, from] = c.matrices([&rows(&output), &rows(&input)])?;
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, to), places.strided(Access::Read, from));
        c.push(RowStep { function: self.function.clone(), to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct RowStep {
    function: RowOp,
    to: Handle<Strided>,
    from: Handle<Strided>,
}

impl RowStep {
    /// How many rows there are, and how long each is.
    fn rows(&self, places: &Places) -> (usize, usize) {
        let (all, [_, (length, _)]) = (places.get(self.from).len(), places.get(self.from).matrix());
        (all.checked_div(length).unwrap_or(0), length)
    }
}

impl Kernel for RowStep {
    fn name(&self, _: &Places) -> &'static str {
        match self.function {
            RowOp::Softmax => "softmax",
            RowOp::LayerNorm { .. } => "layer norm",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        let (rows, length) = self.rows(places);
        (format!("{rows} × {length}"), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        let (rows, length) = self.rows(places);
        Some(product(&[50, rows, length]))
    }

    fn bytes(&self) -> usize {
        match &self.function {
            RowOp::Softmax => 0,
            RowOp::LayerNorm { scale, shift, .. } => 4 * (scale.len() + shift.len()),
        }
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let (_, length) = self.rows(places);
        let contiguous = [to, from].iter().all(|p| p.matrix()[0].0 == 1 && p.matrix()[1].1 == 1);
        let weights = match &self.function {
            RowOp::Softmax => true,
            RowOp::LayerNorm { scale, shift, .. } => scale.len() == length && shift.len() == length,
        };
        if to.dims == from.dims && length > 0 && contiguous && weights {
            Ok(())
        } else {
            Err("rows that do not fit".into())
        }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let length = to.matrix()[1].0;
        kernels::rows(isa, &self.function, &Strided::loops([to, from]).expect(PROVEN), length, part, memory);
    }
}
