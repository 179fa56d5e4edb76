//! DepthToSpace: the channels of a pixel as a square of pixels.

use super::Operator;
use super::rearrange::{Rearrange, view};
use crate::graph::{Inference, unknown_form};
use crate::node::{int, text};
use crate::reason::Reason;

pub static OPERATORS: &[Operator] = &[Operator::new("DepthToSpace").attributes(&["blocksize", "mode"]).any_type().infer(infer).lower(|l, i| {
    let node = l.node(i);
    let block = usize::try_from(int(node, "blocksize")?).ok()?;
    view(l, i, Rearrange::DepthToSpace { block, channels_first: text(node, "mode") == Some("CRD") })
})];

fn infer(n: &Inference) -> Result<Vec<Vec<usize>>, Reason> {
    let block = usize::try_from(int(n.node, "blocksize").unwrap_or(0)).map_err(|_| unknown_form())?;
    match *n.shape(0)? {
        [batch, c, h, w] if (1..=1024).contains(&block) && c % (block * block) == 0 => {
            let side = |n: usize| n.checked_mul(block).ok_or_else(unknown_form);
            Ok(vec![vec![batch, c / (block * block), side(h)?, side(w)?]])
        }
        _ => Err(unknown_form()),
    }
}
