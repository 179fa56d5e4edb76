//! Products of matrices with what onnxruntime does before and after them in one node.

use super::convolution::activated;
use super::{Known, Writer, shape};
use crate::Result;
use crate::pb::{AttributeProto, NodeProto};

/// FusedMatMul, TransposeMatMul (its name once), FusedMatMulActivation and FusedGemm.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let mut w = Writer::new(node, known);
    let result = if node.op_type == "FusedGemm" {
        let kept = ["alpha", "beta", "transA", "transB"];
        let attributes: Vec<AttributeProto> =
            node.attribute.iter().filter(|a| kept.contains(&a.name.as_str())).cloned().collect();
        let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
        w.with("Gemm", &inputs, attributes)
    } else {
        let a = operand(&mut w, node, known, 0)?;
        let b = operand(&mut w, node, known, 1)?;
        let product = w.op("MatMul", &[&a, &b]);
        match node.float("alpha").unwrap_or(1.0) {
            1.0 => product,
            alpha => {
                let alpha = w.number(alpha);
                w.op("Mul", &[&product, &alpha])
            }
        }
    };
    let parameters: Vec<f32> =
        ["activation_alpha", "activation_beta", "activation_gamma"].iter().map_while(|name| node.float(name)).collect();
    let result = activated(&mut w, node, known, result, &parameters)?;
    Ok(Some(w.finish_one(node, result)))
}

/// An operand of a product in the order in which MatMul takes it.
fn operand(w: &mut Writer, node: &NodeProto, known: &dyn Known, i: usize) -> Result<String> {
    let side = ["A", "B"][i];
    let says = |name: &str| node.int(&format!("{name}{side}")).unwrap_or(0) != 0;
    let (turned, batch_inside) = (says("trans"), says("transBatch"));
    let name = node.given(i).unwrap_or_default();
    if !turned && !batch_inside {
        return Ok(name.into());
    }
    let rank = shape(node, known, i)?.len();
    if rank < 2 {
        return Ok(name.into());
    }
    let mut order: Vec<usize> = (0..rank).collect();
    if batch_inside {
        // the rows come before the batch
        order[..rank - 1].rotate_left(1);
    }
    if turned {
        order.swap(rank - 1, rank - 2);
    }
    Ok(w.transpose(name, &order))
}
