//! Copies of values in other numbers: between 32 and 16 bits, where an operation reads what was made in the others.

use crate::place::{Access, Handle, PROVEN, Places, Strided};
use crate::reason::Reason;
use crate::step::{Call, Kernel, Scratch, product};
use kernels::arena::Precision;

/// Copies a value.
#[derive(Debug)]
pub struct Convert {
    to: Handle<Strided>,
    from: Handle<Strided>,
}

impl Convert {
    /// From the second region to the first, which are of these numbers.
    pub fn new([to, from]: [Strided; 2], [to_numbers, from_numbers]: [Precision; 2]) -> (Self, Places) {
        let mut places = Places::default();
        let to = places.strided_of(to_numbers, Access::Write, to);
        let from = places.strided_of(from_numbers, Access::Read, from);
        (Convert { to, from }, places)
    }
}

impl Kernel for Convert {
    fn name(&self, places: &Places) -> &'static str {
        match [places.precision(self.from), places.precision(self.to)] {
            [Precision::F32, Precision::F16] => "rounding to 16 bits",
            [Precision::F16, Precision::F32] => "widening to 32 bits",
            _ => "copy",
        }
    }

    fn sizes(&self, places: &Places) -> (String, u64) {
        (places.get(self.to).len().to_string(), 0)
    }

    fn cost(&self, places: &Places) -> Option<usize> {
        Some(product(&[4, places.get(self.to).len()]))
    }

    fn check(&self, places: &Places) -> Result<(), Reason> {
        let (to, from) = (places.get(self.to), places.get(self.from));
        if to.dims == from.dims && to.matrix() == [(1, 0); 2] { Ok(()) } else { Err("values of unlike shapes".into()) }
    }

    fn run(&self, Call { isa, part, places, memory }: Call<'_>, _: &mut Scratch) {
        let loops = Strided::loops([places.get(self.to), places.get(self.from)]).expect(PROVEN);
        kernels::convert(isa, places.precision(self.from), places.precision(self.to), &loops, part, memory);
    }
}
