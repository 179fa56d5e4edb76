//! Recurrent layers of a known number of steps: LSTM, GRU and RNN, step by step.

use super::writer::int;
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::NodeProto;

/// The most steps.
const MOST_STEPS: usize = 1 << 10;

/// What one direction of a layer is made of.
struct Direction {
    /// What the steps' inputs are multiplied to, `[steps, batch, gates · size]`, with all biases that are added there.
    given: String,
    /// What the hidden state is multiplied with, turned: `[size, gates · size]`.
    recurrent: String,
    /// The biases of that, `[gates · size]`, where they are not among those of the inputs.
    bias: Option<String>,
    hidden: String,
    cell: String,
}

/// LSTM, GRU and RNN.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let op = node.op_type.as_str();
    let plain = ["activation_alpha", "activation_beta", "clip"];
    let whole = |name: &str| node.int(name).unwrap_or(0) != 0;
    if plain.iter().any(|name| node.attribute(name).is_some()) || whole("input_forget") || node.given(7).is_some() {
        return Err(unknown("an activation with parameters, clipping, or peepholes"));
    }
    if node.given(4).is_some() {
        return Err(unknown("a length for each of its sequences"));
    }
    let (of_x, of_r) = (shape(node, known, 0)?, shape(node, known, 2)?);
    let batch_first = whole("layout");
    let &[steps, batch, _] = of_x else { return Err("its input is no sequence".into()) };
    let [steps, batch] = if batch_first { [batch, steps] } else { [steps, batch] };
    let &[directions, rows, size] = of_r else { return Err("its weights are no matrices".into()) };
    let gates = match op {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let wanted = match node.text("direction").unwrap_or("forward") {
        "bidirectional" => 2,
        "forward" | "reverse" => 1,
        _ => 0,
    };
    if directions != wanted || Some(rows) != size.checked_mul(gates) || !(1..=MOST_STEPS).contains(&steps) {
        return Err(format!("weights of {directions} directions and {rows} rows, or {steps} steps"));
    }
    let functions = functions(node, directions)?;
    let mut w = Writer::new(node, known);
    let x = node.given(0).unwrap_or_default();
    let x = if batch_first { w.transpose(x, &[1, 0, 2]) } else { x.to_string() };
    let (mut all, mut hidden, mut cell) = (Vec::new(), Vec::new(), Vec::new());
    for (d, functions) in functions.iter().enumerate() {
        let backward = node.text("direction") == Some("reverse") || d == 1;
        let mut direction = Direction::new(&mut w, node, &x, (d, batch_first), [batch, gates, size]);
        let mut made = vec![String::new(); steps];
        for i in 0..steps {
            let i = if backward { steps - 1 - i } else { i };
            direction.step(&mut w, (op, functions), i, size, whole("linear_before_reset"));
            made[i] = w.unsqueeze(&direction.hidden, 0);
        }
        let parts: Vec<&str> = made.iter().map(String::as_str).collect();
        let sequence = w.with("Concat", &parts, vec![int("axis", 0)]);
        all.push(w.unsqueeze(&sequence, if batch_first { 2 } else { 1 }));
        hidden.push(w.unsqueeze(&direction.hidden, 0));
        cell.push(w.unsqueeze(&direction.cell, 0));
    }
    let joined = |w: &mut Writer, parts: &[String], axis: usize| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if let [one] = parts[..] { one.to_string() } else { w.with("Concat", &parts, vec![int("axis", axis as i64)]) }
    };
    let mut results = Vec::new();
    if node.result(0).is_some() {
        let y = joined(&mut w, &all, if batch_first { 2 } else { 1 });
        results.push((0, if batch_first { w.transpose(&y, &[1, 0, 2, 3]) } else { y }));
    }
    for (i, parts) in [(1, &hidden), (2, &cell)] {
        if node.result(i).is_some() {
            let last = joined(&mut w, parts, 0);
            results.push((i, if batch_first { w.transpose(&last, &[1, 0, 2]) } else { last }));
        }
    }
    Ok(Some(w.finish(node, &results)))
}

/// The activations of each direction: those of the gates, of what is new, and of the cell.
fn functions(node: &NodeProto, directions: usize) -> Result<Vec<Vec<&'static str>>> {
    let usual: &[&str] = match node.op_type.as_str() {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let Some(given) = node.attribute("activations") else { return Ok(vec![usual.to_vec(); directions]) };
    let known = ["Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"];
    let named = |name: &[u8]| known.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name));
    let all: Option<Vec<&str>> = given.strings.iter().map(|name| named(name)).collect();
    let all = all.ok_or_else(|| unknown("another activation than Relu, Sigmoid, Softplus, Softsign and Tanh"))?;
    if Some(all.len()) != usual.len().checked_mul(directions) {
        return Err(format!("{} activations for {directions} directions", all.len()));
    }
    Ok(all.chunks(usual.len()).map(<[&str]>::to_vec).collect())
}

impl Direction {
    fn new(
        w: &mut Writer,
        node: &NodeProto,
        x: &str,
        (d, batch_first): (usize, bool),
        [batch, gates, size]: [usize; 3],
    ) -> Self {
        let index = w.integers(&[], &[d as i64]);
        let of = |w: &mut Writer, name: &str, axis: i64| w.with("Gather", &[name, &index], vec![int("axis", axis)]);
        let [weights, recurrent] = [1, 2].map(|i| {
            let matrix = of(w, node.given(i).unwrap_or_default(), 0);
            w.transpose(&matrix, &[1, 0])
        });
        let mut given = w.op("MatMul", &[x, &weights]);
        let mut bias = None;
        if let Some(biases) = node.given(3) {
            let both = of(w, biases, 0);
            let rows = gates * size;
            let (first, second) = (w.slice(&both, 0, 0, rows), w.slice(&both, 0, rows, 2 * rows));
            given = w.op("Add", &[&given, &first]);
            // a GRU multiplies one of the others by its gate
            if node.op_type == "GRU" {
                bias = Some(second);
            } else {
                given = w.op("Add", &[&given, &second]);
            }
        }
        let mut initial = |i: usize| match node.given(i) {
            Some(name) => of(w, name, i64::from(batch_first)),
            None => w.floats(&[batch, size], &vec![0.0; batch * size]),
        };
        let (hidden, cell) = (initial(5), if node.op_type == "LSTM" { initial(6) } else { String::new() });
        Direction { given, recurrent, bias, hidden, cell }
    }

    /// One step: of the inputs of index `i`.
    fn step(
        &mut self,
        w: &mut Writer,
        (op, functions): (&str, &[&str]),
        i: usize,
        size: usize,
        linear_before_reset: bool,
    ) {
        let index = w.integers(&[], &[i as i64]);
        let given = w.with("Gather", &[&self.given, &index], vec![int("axis", 0)]);
        if op == "GRU" {
            return self.gru(w, functions, &given, size, linear_before_reset);
        }
        let product = w.op("MatMul", &[&self.hidden, &self.recurrent]);
        let sums = w.op("Add", &[&product, &given]);
        if op == "RNN" {
            self.hidden = w.op(functions[0], &[&sums]);
            return;
        }
        // input, output, forget, and what is new
        let parts =
            [functions[0], functions[0], functions[0], functions[1]].into_iter().enumerate().map(|(gate, function)| {
                let part = w.slice(&sums, 1, gate * size, (gate + 1) * size);
                w.op(function, &[&part])
            });
        let parts: Vec<String> = parts.collect();
        let (kept, new) = (w.op("Mul", &[&parts[2], &self.cell]), w.op("Mul", &[&parts[0], &parts[3]]));
        self.cell = w.op("Add", &[&kept, &new]);
        let bent = w.op(functions[2], &[&self.cell]);
        self.hidden = w.op("Mul", &[&parts[1], &bent]);
    }

    fn gru(&mut self, w: &mut Writer, functions: &[&str], given: &str, size: usize, linear_before_reset: bool) {
        let product = |w: &mut Writer, hidden: &str, weights: &str, bias: Option<&str>| {
            let product = w.op("MatMul", &[hidden, weights]);
            bias.map_or(product.clone(), |bias| w.op("Add", &[&product, bias]))
        };
        let gate = |w: &mut Writer, all: &str, axis: usize, i: usize| w.slice(all, axis, i * size, (i + 1) * size);
        let gates: Vec<String> = (0..2)
            .map(|i| {
                let weights = gate(w, &self.recurrent, 1, i);
                let bias = self.bias.as_ref().map(|bias| gate(w, bias, 0, i));
                let recurrent = product(w, &self.hidden, &weights, bias.as_deref());
                let given = gate(w, given, 1, i);
                let sum = w.op("Add", &[&given, &recurrent]);
                w.op(functions[0], &[&sum])
            })
            .collect();
        let weights = gate(w, &self.recurrent, 1, 2);
        let bias = self.bias.as_ref().map(|bias| gate(w, bias, 0, 2));
        let recurrent = if linear_before_reset {
            let recurrent = product(w, &self.hidden, &weights, bias.as_deref());
            w.op("Mul", &[&gates[1], &recurrent])
        } else {
            let reset = w.op("Mul", &[&gates[1], &self.hidden]);
            product(w, &reset, &weights, bias.as_deref())
        };
        let given = gate(w, given, 1, 2);
        let sum = w.op("Add", &[&given, &recurrent]);
        let new = w.op(functions[1], &[&sum]);
        // (1 - z) · new + z · hidden
        let change = w.op("Sub", &[&self.hidden, &new]);
        let kept = w.op("Mul", &[&gates[0], &change]);
        self.hidden = w.op("Add", &[&new, &kept]);
    }
}
