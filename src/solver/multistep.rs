//! What multistep methods share.

use super::table::Register;
use crate::schedule::Grid;
use crate::{Error, Result};

/// How many of the latest evaluations a multistep method of this order can use in each step: those that
/// there are, leaving out one where there was no signal, and, if asked to, two and one in the last steps
/// of a run of fewer than 15, as diffusers does.
pub(super) fn multistep_orders(grid: &Grid, order: usize, lower_order_final: bool) -> impl Iterator<Item = usize> + '_ {
    let n = grid.steps.len();
    let without_signal = grid.steps.iter().take_while(|s| s.from.gamma == 0.0).count();
    (0..n).map(move |i| {
        let there_are = (i + 1).saturating_sub(without_signal).max(1);
        let remaining = if lower_order_final && n < 15 { n - i } else { order };
        order.min(there_are).min(remaining)
    })
}

/// The registers of the latest `order` evaluations, the newest first, after evaluation `i` of a run whose
/// evaluations go round `order` registers from `first` on.
pub(super) fn ring(first: Register, order: usize, i: usize) -> impl Iterator<Item = Register> {
    (0..order).map(move |back| first + (i + order - back) % order)
}

pub(super) fn check_order(name: &str, order: usize, highest: usize) -> Result<()> {
    if (1..=highest).contains(&order) {
        return Ok(());
    }
    Err(Error::invalid(format!("the order of {name} must be from 1 to {highest}, not {order}")))
}
