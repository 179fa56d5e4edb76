//! A step that copies numbers from where tables of indices say: padding by what a value has, and reading backward.

use super::Operation;
use crate::compile::Compiler;
use crate::place::{Access, Handle, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::general::RANK;

/// For each dimension the index that each of the result's is read from; `None` for what is filled.
pub type Table = Vec<Option<usize>>;

/// A value whose numbers are those of another at the indices of a table for each dimension.
pub struct Indexed<'a> {
    pub x: &'a str,
    pub tables: Vec<Table>,
    /// What is where no index is.
    pub fill: f32,
}

impl<'a> Operation<'a> for Indexed<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        vec![self.x]
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let input = c.value(self.x)?;
        let output = c.like(out, &input)?;
        if input.dims.len() > RANK {
            return Err("more dimensions than there are loops".into());
        }
        let numbers = self.tables.iter().map(Vec::len).fold(0, usize::saturating_add);
        c.graph.take_numbers(numbers.saturating_mul(2))?;
        // in the order in which the result's numbers lie, so that the last loop runs over neighbours
        let mut order: Vec<usize> = (0..output.dims.len()).collect();
        order.sort_by_key(|d| std::cmp::Reverse(output.strides[*d]));
        let region = |p: &kernels::arena::StridedView| {
            let mut all =
                Strided { start: p.start, dims: [1; crate::place::MOST_DIMS], strides: [0; crate::place::MOST_DIMS] };
            for (i, d) in order.iter().enumerate() {
                let at = RANK - order.len() + i;
                (all.dims[at], all.strides[at]) = (p.dims[*d], p.strides[*d]);
            }
            all
        };
        let mut places = Places::default();
        let (to, from) = (places.strided(Access::Write, region(&output)), places.strided(Access::Read, region(&input)));
        let mut tables = vec![vec![Some(0)]; RANK - order.len()];
        tables.extend(order.iter().map(|d| self.tables[*d].clone()));
        c.push(IndexedStep { tables, fill: self.fill, to, from }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct IndexedStep {
    /// One for each loop.
    tables: Vec<Table>,
    fill: f32,
    to: Handle<Strided>,
    from: Handle<Strided>,
}

impl Kernel for IndexedStep {
    fn name(&self, _: &Places) -> &'static str {
        "indexed copy"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[30, places.get(self.to).len()]))
    }

    fn bytes(&self) -> usize {
        self.tables.iter().map(|table| size_of_val(table.as_slice())).sum()
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let plain = [to, from].iter().all(|p| p.matrix() == [(1, 0); 2]) && self.tables.len() == RANK;
        let each = |(d, table): (usize, &Table)| {
            table.len() == to.dims[d] && table.iter().flatten().all(|index| *index < from.dims[d])
        };
        if plain && self.tables.iter().enumerate().all(each) {
            Ok(())
        } else {
            Err("indices beyond their value".into())
        }
    }

    fn run(&self, Call { part, places, memory, .. }: Call<'_>, _: &mut Scratch) {
        let (to, from) = (places.get(self.to), places.get(self.from));
        let last = RANK - 1;
        for line in part.range(product(&to.dims[..last])) {
            // where the line begins in both, unless all of it is filled
            let (mut rest, mut at, mut source) = (line, to.start, Some(from.start));
            for d in (0..last).rev() {
                let i = rest % to.dims[d];
                rest /= to.dims[d];
                at += i * to.strides[d];
                source = source.zip(self.tables[d][i]).map(|(source, index)| source + index * from.strides[d]);
            }
            for (i, index) in self.tables[last].iter().enumerate() {
                let value =
                    source.zip(*index).map_or(self.fill, |(s, index)| memory.get(s + index * from.strides[last]));
                memory.set(at + i * to.strides[last], value);
            }
        }
    }
}
