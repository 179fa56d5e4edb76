//! A step that does something to each row of numbers that lie together: softmax and norms.

use super::Operation;
use crate::compile::{Compiler, inverse};
use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::StridedView;
use kernels::general::RowOp;

/// Something to each row of numbers along some dimensions, the last of them the fastest.
pub struct RowOperation<'a> {
    pub x: &'a str,
    pub function: RowOp,
    pub axes: Vec<usize>,
}

impl<'a> Operation<'a> for RowOperation<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        // with the rows as the last dimension
        let mut order: Vec<usize> = (0..input.dims.len()).filter(|d| !self.axes.contains(d)).collect();
        let outer: Vec<usize> = order.iter().map(|d| input.dims[*d]).collect();
        order.extend(&self.axes);
        let rows = |p: &StridedView| {
            let p = p.permuted(&order);
            let length = p.dims[outer.len()..].iter().try_fold(1, |n: usize, d| n.checked_mul(*d))?;
            let rows = p.reshaped(&[&outer[..], &[length]].concat())?;
            (length == 1 || rows.strides.last() == Some(&1)).then_some(rows)
        };
        let from = match rows(&input) {
            Some(rows) => rows,
            None => {
                let copy = c.contiguous(&input.permuted(&order), |_| false)?;
                rows(&copy.permuted(&inverse(&order))).ok_or("rows of numbers that do not lie together")?
            }
        };
        // as the input lies, or with the rows together where it does not have them so
        let like = if rows(&input).is_some() { Some(c.like(out, &input)?) } else { None };
        let (output, to) = match like.and_then(|like| rows(&like).map(|to| (like, to))) {
            Some(both) => both,
            None => {
                let to = c.row_major(&order.iter().map(|d| input.dims[*d]).collect::<Vec<_>>())?;
                let output = to.permuted(&inverse(&order));
                let rows = rows(&output).ok_or("rows of numbers that do not lie together")?;
                (output, rows)
            }
        };
        // as matrices of one row
        let matrices = |p: &StridedView| {
            let mut rows = p.clone();
            rows.dims.insert(rows.dims.len() - 1, 1);
            rows.strides.insert(rows.strides.len() - 1, 0);
            *rows.strides.last_mut().expect("a row") = 1;
            rows
        };
        let [to, from] = c.matrices([&matrices(&to), &matrices(&from)])?;
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
            RowOp::LogSoftmax => "log-softmax",
            RowOp::LayerNorm { .. } => "layer norm",
            RowOp::RmsNorm { .. } => "RMS norm",
            RowOp::L2Norm { .. } => "L2 norm",
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
        self.function.bytes()
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let (_, length) = self.rows(places);
        let contiguous = [to, from].iter().all(|p| p.matrix()[0].0 == 1 && p.matrix()[1].1 == 1);
        if to.dims == from.dims && length > 0 && contiguous && self.function.fits(length) {
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
