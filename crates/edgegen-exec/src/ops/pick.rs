//! A step whose result is numbers of one or two values, each from a place that is known before anything runs: what operators
//! that gather, scatter, turn round or cut out by stored indices come to.

use super::Operation;
use crate::compile::Compiler;
use crate::constant::Constant;
use crate::lower::{Lowered, Lowering, Operand};
use crate::place::{Access, Handle, Places, Slice};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};

/// From where each number of a result is taken: a place among the numbers of the first value, followed by those of the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picks {
    /// The dimensions of the result.
    pub dims: Vec<usize>,
    /// A place for each of its numbers.
    pub from: Vec<usize>,
}

impl Picks {
    /// What they make of stored tensors.
    pub fn fold(self, first: &Constant, second: Option<&Constant>) -> Constant {
        let (a, b) = (&first.values, second.map_or(&[][..], |second| &second.values));
        let exact = first.exact && second.is_none_or(|second| second.exact);
        let at = |at: &usize| if *at < a.len() { a[*at] } else { b[*at - a.len()] };
        Constant { exact, ..Constant::of(self.dims, self.from.iter().map(at).collect(), first.kind) }
    }

    /// Node `i` as these numbers of its operands.
    pub fn lower<'a>(self, l: &Lowering<'a>, i: usize, operands: Vec<Operand<'a>>) -> Option<Lowered<'a>> {
        // once as it is recognised, and in the plan, as 32 bits
        l.graph.take_numbers(self.from.len().checked_mul(3)?).ok()?;
        let from = self.from.into_iter().map(|at| u32::try_from(at).ok()).collect::<Option<_>>()?;
        l.one(i, Picked { operands, from })
    }
}

/// Numbers of values.
struct Picked<'a> {
    operands: Vec<Operand<'a>>,
    from: Vec<u32>,
}

impl<'a> Operation<'a> for Picked<'a> {
    fn inputs(&self) -> Vec<&'a str> {
        self.operands.iter().filter_map(Operand::value).collect()
    }

    fn compile(&self, c: &mut Compiler<'_, 'a>, out: &'a str) -> Result<(), Reason> {
        let mut places = Places::default();
        let mut from = Vec::new();
        for operand in &self.operands {
            let place = c.operand(operand)?;
            let place = c.contiguous(&place, |p| p.run().is_some())?;
            from.push(places.slice(Access::Read, Slice { start: place.start, len: place.len() }));
        }
        let output = c.row_major(c.dims(out)?)?;
        let to = places.slice(Access::Write, Slice { start: output.start, len: output.len() });
        c.push(PickStep { picks: self.from.clone(), from, to }, places);
        c.put(out, output);
        Ok(())
    }
}

#[derive(Debug)]
struct PickStep {
    picks: Vec<u32>,
    from: Vec<Handle<Slice>>,
    to: Handle<Slice>,
}

impl Kernel for PickStep {
    fn name(&self, _: &Places) -> &'static str {
        "numbers by stored places"
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len.to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[15, places.get(self.to).len]))
    }

    fn bytes(&self) -> usize {
        4 * self.picks.len()
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let all = self.from.iter().map(|from| places.get(*from).len).fold(0, usize::saturating_add);
        let within = self.picks.iter().all(|at| (*at as usize) < all);
        let fits = (1..=2).contains(&self.from.len()) && self.picks.len() == places.get(self.to).len;
        if fits && within { Ok(()) } else { Err("places that are not within their values".into()) }
    }

    fn run(&self, Call { places, memory, part, .. }: Call<'_>, _: &mut Scratch) {
        let to = places.get(self.to);
        let first = places.get(self.from[0]);
        let second = self.from.last().map_or(first, |second| places.get(*second));
        for i in part.range(to.len) {
            let at = self.picks[i] as usize;
            let at = if at < first.len { first.start + at } else { second.start + (at - first.len) };
            memory.set(to.start + i, memory.get(at));
        }
    }
}
