//! What each operator of ONNX takes in each opset, and the check of every node of a model against it.
//!
//! The table is `signatures.txt`: for each operator the forms that it has had since opset 7, with inputs, outputs, element
//! types and attributes. A node that does not fit its form, or that is of no operator of the table, is refused, since
//! whatever ran it could only guess what it means.

pub mod nested;

use crate::Result;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::type_proto::Value;
use crate::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};

const FLOATS: [DataType; 4] = [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];

/// Attributes that say yes or no: 1 or 0.
const FLAGS: [&str; 25] = [
    "allowzero",
    "antialias",
    "ceil_mode",
    "channels_last",
    "count_include_pad",
    "detect_negative",
    "detect_positive",
    "exclude_outside",
    "exclusive",
    "fmod",
    "interleaved",
    "is_causal",
    "keepdims",
    "largest",
    "noop_with_empty_axes",
    "reverse",
    "saturate",
    "select_last_index",
    "sorted",
    "spatial",
    "training_mode",
    "transA",
    "transB",
    "unidirectional",
    "upper",
];

/// The words that an attribute of text may be, where it is not free.
fn words(op: &str, attribute: &str) -> Option<&'static [&'static str]> {
    Some(match (op, attribute) {
        (_, "auto_pad") => &["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"],
        (_, "approximate") => &["none", "tanh"],
        (_, "reduction") => &["none", "add", "mul", "max", "min"],
        (_, "nearest_mode") => &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
        (_, "keep_aspect_ratio_policy") => &["stretch", "not_larger", "not_smaller"],
        (_, "coordinate_transformation_mode") => &[
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
            "tf_half_pixel_for_nn",
        ],
        ("Resize", "mode") => &["nearest", "linear", "cubic"],
        ("Upsample", "mode") => &["nearest", "linear"],
        ("Pad", "mode") => &["constant", "reflect", "edge", "wrap"],
        ("DepthToSpace", "mode") => &["DCR", "CRD"],
        ("FusedConv" | "FusedGemm" | "FusedMatMulActivation" | "Conv", "activation") => {
            &["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid"]
        }
        _ => return None,
    })
}

/// What tells the element type of a value.
pub type TypeOf<'f> = &'f dyn Fn(&str) -> Option<DataType>;

/// An input or output of an operator.
#[derive(Debug)]
struct Parameter {
    /// A variable of the form, or an element type.
    of: &'static str,
    optional: bool,
    variadic: bool,
}

#[derive(Debug)]
struct Attribute {
    name: &'static str,
    kind: AttributeType,
    required: bool,
    default: Option<&'static str>,
}

/// An operator from some opset on, until its next form.
#[derive(Debug)]
struct Form {
    since: i64,
    inputs: Vec<Parameter>,
    outputs: Vec<Parameter>,
    variables: HashMap<&'static str, Vec<DataType>>,
    attributes: Vec<Attribute>,
}

/// The operators of ONNX, in the order of their names, each form on a line of its own. It is read where it is asked for: a
/// table in memory would take as long to make as a small model takes to load.
const SIGNATURES: &str = include_str!("signatures.txt");

/// The operators that onnxruntime adds to them, in the same form.
const ADDED: &str = include_str!("signatures_onnxruntime.txt");

/// The first and the last opset that the table knows.
fn opsets() -> [i64; 2] {
    let line = SIGNATURES.lines().find_map(|line| line.strip_prefix("opsets "));
    let ends = line.and_then(|line| line.split_once(" to ")).map(|(a, b)| [a, b].map(|n| n.parse().unwrap_or(0)));
    ends.unwrap_or([0, 0])
}

/// The lines of an operator in a table, the oldest form first: each opset that a form is from, and the rest of the line.
fn lines_of(table: &'static str, op: &str) -> impl Iterator<Item = (i64, &'static str)> {
    let body = table.find("opsets ").and_then(|at| Some(&table[at + table[at..].find('\n')? + 1..]));
    let body = body.unwrap_or_default();
    let name = |line: &'static str| line.split(' ').next().unwrap_or_default();
    // the first line whose name is not less, between two starts of lines
    let (mut low, mut high) = (0, body.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = body[..middle].rfind('\n').map_or(0, |at| at + 1);
        let line = body[start..].lines().next().unwrap_or_default();
        if name(line) < op {
            low = start + line.len() + 1;
        } else {
            high = start;
        }
    }
    let lines = body.get(low..).unwrap_or_default().lines();
    let op = op.to_string();
    lines.take_while(move |line| name(line) == op).filter_map(|line| {
        let (operator, rest) = line.split_once('|')?;
        Some((operator.split(' ').nth(1)?.parse().ok()?, rest))
    })
}

/// The line of the form that a node's operator has in an opset; `None` where there is no such operator.
fn line_of(node: &NodeProto, opset: i64) -> Option<(i64, &'static str)> {
    let newest = |table, op: &str| {
        let newest = lines_of(table, op).take_while(|(since, _)| *since <= opset).last()?;
        Some(newest).filter(|(_, line)| line.trim() != "none")
    };
    if is_standard(&node.domain) {
        newest(SIGNATURES, &node.op_type).or_else(|| newest(ADDED, &node.op_type))
    } else {
        newest(ADDED, &format!("{}.{}", node.domain, node.op_type))
    }
}

fn parse((since, line): (i64, &'static str)) -> Option<Form> {
    let mut columns = line.split('|').map(str::trim);
    let [inputs, outputs, variables, attributes] = std::array::from_fn(|_| columns.next().unwrap_or_default());
    Some(Form {
        since,
        inputs: inputs.split_whitespace().map(parameter).collect(),
        outputs: outputs.split_whitespace().map(parameter).collect(),
        variables: variables.split(';').filter(|v| !v.is_empty()).map(variable).collect::<Option<_>>()?,
        attributes: attributes.split_whitespace().map(attribute).collect::<Option<_>>()?,
    })
}

fn parameter(text: &'static str) -> Parameter {
    let of = text.trim_end_matches(['?', '*']);
    Parameter { of, optional: text.ends_with('?'), variadic: text.ends_with('*') }
}

fn variable(text: &'static str) -> Option<(&'static str, Vec<DataType>)> {
    let (name, types) = text.split_once(':')?;
    Some((name.trim(), types.split_whitespace().map(element_type).collect::<Option<_>>()?))
}

fn element_type(name: &str) -> Option<DataType> {
    Some(match name {
        "f32" => DataType::Float,
        "f16" => DataType::Float16,
        "f64" => DataType::Double,
        "bf16" => DataType::Bfloat16,
        "bool" => DataType::Bool,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u8" => DataType::Uint8,
        "u16" => DataType::Uint16,
        "u32" => DataType::Uint32,
        "u64" => DataType::Uint64,
        "i2" => DataType::Int2,
        "u2" => DataType::Uint2,
        "i4" => DataType::Int4,
        "u4" => DataType::Uint4,
        _ => return None,
    })
}

fn attribute(text: &'static str) -> Option<Attribute> {
    let (name, kind) = text.split_once(':')?;
    let (kind, default) = kind.split_once('=').map_or((kind, None), |(kind, default)| (kind, Some(default)));
    let required = kind.ends_with('!');
    let kind = match kind.trim_end_matches('!') {
        "int" => AttributeType::Int,
        "float" => AttributeType::Float,
        "string" => AttributeType::String,
        "tensor" => AttributeType::Tensor,
        "ints" => AttributeType::Ints,
        "floats" => AttributeType::Floats,
        "strings" => AttributeType::Strings,
        "sparse" => AttributeType::SparseTensor,
        "graph" => AttributeType::Graph,
        _ => return None,
    };
    Some(Attribute { name, kind, required, default })
}

/// A name from a file as a part of a line: short, and without line breaks.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(60).flat_map(char::escape_default).collect();
    if name.chars().nth(60).is_some() {
        text.push('…');
    }
    text
}

/// A node as errors call it: its operator, and its name if it has one.
pub fn called(node: &NodeProto) -> String {
    match node.name.as_str() {
        "" => shown(&node.op_type),
        name => format!("{} '{}'", shown(&node.op_type), shown(name)),
    }
}

/// The version of ONNX's own operators that a model is written in.
///
/// # Errors
/// When it says none, or one that is not known here.
pub fn opset(model: &ModelProto) -> Result<i64> {
    let mut versions = model.opset_import.iter().filter(|o| is_standard(&o.domain)).map(|o| o.version);
    let version = versions.next().ok_or("the model does not say which opset of ONNX it is written in")?;
    if versions.any(|other| other != version) {
        return Err("the model says two opsets of ONNX that it is written in".into());
    }
    let [first, last] = opsets();
    if (first..=last).contains(&version) {
        Ok(version)
    } else {
        Err(format!("the model is written in opset {version} of ONNX, but those from {first} to {last} are supported"))
    }
}

pub(crate) fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Checks every node of a model whose functions are inlined and whose nodes are in order: that its operator is known, that
/// it has the inputs, outputs and attributes that the opset gives it, and that element types go together.
///
/// # Errors
/// When one does not: which, and what is wrong with it.
pub fn check(model: &mut ModelProto) -> Result<()> {
    let opset = opset(model)?;
    let graph = model.graph.as_mut().ok_or("the model holds no graph")?;
    check_operators(graph, opset)?;
    nested::mark_unknown_branches(graph, opset)?;
    let known = types(graph, opset)?;
    if let Some(output) = graph.output.iter().find(|o| !known.contains_key(o.name.as_str())) {
        return Err(format!("nothing in the graph makes its output '{}'", shown(&output.name)));
    }
    graph.node.iter().filter(|n| n.op_type == "Dropout").try_for_each(|n| check_dropout(n, graph))
}

/// The element type of every value of a graph whose nodes are in order and of this opset.
///
/// # Errors
/// When a node is not as the opset says.
pub fn types(graph: &GraphProto, opset: i64) -> Result<HashMap<&str, DataType>> {
    types_within(graph, opset, &|_| None)
}

/// The same of a graph inside a node, which may read values of the graphs around it.
fn types_within<'g>(graph: &'g GraphProto, opset: i64, around: TypeOf) -> Result<HashMap<&'g str, DataType>> {
    let mut types = stored_types(graph)?;
    for node in &graph.node {
        let results = result_types(node, opset, &|name| types.get(name).copied().or_else(|| around(name)))?;
        for (name, element) in node.output.iter().zip(results).filter(|(name, _)| !name.is_empty()) {
            if types.insert(name, element).is_some() {
                return Err(format!("the graph makes '{}' twice", shown(name)));
            }
        }
    }
    Ok(types)
}

/// Refuses a Dropout that trains, or whose word on that is not known.
fn check_dropout(node: &NodeProto, graph: &GraphProto) -> Result<()> {
    let Some(mode) = node.input.get(2).filter(|name| !name.is_empty()) else { return Ok(()) };
    let stored = graph.initializer.iter().find(|t| t.name == *mode);
    let made = || graph.node.iter().find(|n| n.op_type == "Constant" && n.output.first() == Some(mode));
    let tensor = stored.or_else(|| made()?.attribute.first()?.t.as_ref());
    let off = |t: &TensorProto| {
        let numbers = t.raw_data.iter().map(|b| i32::from(*b)).chain(t.int32_data.iter().copied());
        t.dims.is_empty() && numbers.eq([0])
    };
    match tensor.is_some_and(off) {
        true => Ok(()),
        false => Err(format!("{}: its training mode must be a stored false", called(node))),
    }
}

/// Whether all operators are known: all that are not, in one line, since that is what a user has to change.
fn check_operators(graph: &GraphProto, opset: i64) -> Result<()> {
    let mut unknown: Vec<String> = Vec::new();
    for node in &graph.node {
        if line_of(node, opset).is_none() {
            let domain = if is_standard(&node.domain) { String::new() } else { format!("{}.", shown(&node.domain)) };
            let name = format!("{domain}{}", shown(&node.op_type));
            if !unknown.contains(&name) && unknown.len() < 10 {
                unknown.push(name);
            }
        }
    }
    unknown.sort_unstable();
    match unknown.as_slice() {
        [] => Ok(()),
        names => Err(format!("the model uses operators that are not supported in opset {opset}: {}", names.join(", "))),
    }
}

/// Whether a node is of those quantized operators of onnxruntime's that [`qoperator`](crate::qoperator) rewrites.
fn is_quantized(node: &NodeProto) -> bool {
    node.domain == "com.microsoft" && (node.op_type.starts_with("QLinear") || node.op_type == "QGemm")
}

/// The form that a node's operator has in this opset.
fn form(node: &NodeProto, opset: i64) -> Option<Form> {
    parse(line_of(node, opset)?)
}

/// The element types of inputs and stored tensors.
fn stored_types(graph: &GraphProto) -> Result<HashMap<&str, DataType>> {
    if let Some(tensor) = graph.sparse_initializer.first() {
        let name = tensor.values.as_ref().map(|v| shown(&v.name)).unwrap_or_default();
        return Err(format!("the stored tensor '{name}' is sparse, which is not supported"));
    }
    let mut types = HashMap::new();
    for tensor in &graph.initializer {
        let element = DataType::try_from(tensor.data_type).unwrap_or_default();
        if types.insert(tensor.name.as_str(), element).is_some() {
            return Err(format!("the graph stores two tensors as '{}'", shown(&tensor.name)));
        }
    }
    let mut inputs = HashSet::new();
    for input in &graph.input {
        let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        if let Some(Value::TensorType(tensor)) = value {
            // a stored tensor of that name is the input's default, which nobody can override here
            types.entry(&input.name).or_insert(DataType::try_from(tensor.elem_type).unwrap_or_default());
        }
        if !inputs.insert(&input.name) {
            return Err(format!("the graph has two inputs '{}'", shown(&input.name)));
        }
    }
    Ok(types)
}

/// Checks a node, and says what its results are made of.
///
/// # Errors
/// When it is not what the opset says, or when nothing has made one of its inputs.
pub fn result_types(node: &NodeProto, opset: i64, type_of: TypeOf) -> Result<Vec<DataType>> {
    let wrong = |what: String| format!("{}: {what}", called(node));
    if let Some(missing) = node.input.iter().find(|name| !name.is_empty() && type_of(name).is_none()) {
        return Err(wrong(format!("nothing in the graph makes its input '{}'", shown(missing))));
    }
    let form = form(node, opset).ok_or_else(|| wrong(format!("there is no such operator in opset {opset}")))?;
    let form = &form;
    check_attributes(node, form).map_err(wrong)?;
    if nested::is_control_flow(node) {
        return nested::result_types(node, opset, type_of).map_err(wrong);
    }
    if node.op_type == "QGemm" && node.given(8).is_none() {
        return Ok(vec![DataType::Float; node.output.len()]);
    }
    if is_quantized(node) {
        // levels all, of the type of the first tensor of 8 bits
        let level = |name: &String| type_of(name).filter(|t| matches!(t, DataType::Uint8 | DataType::Int8));
        let level = node.input.iter().find_map(level).ok_or_else(|| wrong("none of its inputs is of 8 bits".into()))?;
        return Ok(vec![level; node.output.len()]);
    }
    let mut known = HashMap::new();
    check_inputs(node, form, type_of, &mut known).map_err(wrong)?;
    let is_float = known.get("T").is_some_and(|t| FLOATS.contains(t));
    if node.op_type == "Mod" && is_float && !node.attribute.iter().any(|a| a.name == "fmod" && a.i == 1) {
        return Err(wrong("floats need its attribute 'fmod'".into()));
    }
    let least = form.outputs.iter().filter(|p| !p.optional).count();
    let most = if form.outputs.iter().any(|p| p.variadic) { usize::MAX } else { form.outputs.len() };
    if !(least..=most).contains(&node.output.len()) || node.output[..least.min(1)].iter().any(String::is_empty) {
        return Err(wrong(format!("it has {} outputs, which opset {} does not know", node.output.len(), form.since)));
    }
    (0..node.output.len()).map(|i| result_type(node, form, i, &known)).collect::<Result<_>>().map_err(wrong)
}

/// The element type of result `i`, where the variables of the inputs are known.
fn result_type(node: &NodeProto, form: &Form, i: usize, known: &HashMap<&str, DataType>) -> Result<DataType> {
    let parameter = form.outputs.get(i).or(form.outputs.last()).expect("every operator has an output");
    let element = match element_type(parameter.of).or_else(|| known.get(parameter.of).copied()) {
        Some(element) => element,
        None => chosen_type(node, form, parameter.of, known)?,
    };
    let allowed = form.variables.get(parameter.of);
    match allowed.is_none_or(|all| all.contains(&element)) {
        true => Ok(element),
        false => Err(format!("its result cannot be of type {element:?}")),
    }
}

/// The element types of a graph's values, as far as they are known, once [passes](crate::mend) have rewritten it: its nodes
/// are then of no single opset any more, and numbers of 16 bits are computed with in 32.
pub fn types_as_computed(graph: &GraphProto, opset: i64) -> HashMap<&str, DataType> {
    let single = |element| match element {
        DataType::Float16 | DataType::Bfloat16 => DataType::Float,
        other => other,
    };
    let mut types = stored_types(graph).unwrap_or_default();
    types.values_mut().for_each(|element| *element = single(*element));
    for node in &graph.node {
        for (name, element) in computed_types(node, opset, &|name| types.get(name).copied()) {
            types.insert(name, single(element));
        }
    }
    types
}

/// The element types of a node's results, as far as they follow from what is known of its inputs'.
pub fn computed_types<'n>(node: &'n NodeProto, opset: i64, type_of: TypeOf) -> Vec<(&'n str, DataType)> {
    let newest = || form(node, opsets()[1]);
    let Some(form) = form(node, opset).or_else(newest) else { return Vec::new() };
    let mut known = HashMap::new();
    for (i, name) in node.input.iter().enumerate() {
        let parameter = form.inputs.get(i).or(form.inputs.last());
        if let Some((parameter, element)) = parameter.zip(type_of(name)) {
            known.entry(parameter.of).or_insert(element);
        }
    }
    let named = node.output.iter().enumerate().filter(|(_, name)| !name.is_empty());
    named.filter_map(|(i, name)| Some((name.as_str(), result_type(node, &form, i, &known).ok()?))).collect()
}

/// Whether an attribute says what would hold without it.
pub fn is_default(node: &NodeProto, given: &AttributeProto, opset: i64) -> bool {
    let known = form(node, opset).and_then(|form| form.attributes.into_iter().find(|a| a.name == given.name));
    known.and_then(|known| Some((known.kind, known.default?))).is_some_and(|(kind, default)| match kind {
        AttributeType::Int => default.parse() == Ok(given.i),
        AttributeType::Float => default.parse() == Ok(given.f),
        AttributeType::String => default.as_bytes() == given.s,
        _ => false,
    })
}

/// The type of a result that does not follow from inputs: attributes say it.
fn chosen_type(node: &NodeProto, form: &Form, variable: &str, known: &HashMap<&str, DataType>) -> Result<DataType> {
    let given = |name: &str| node.attribute.iter().find(|a| a.name == name);
    let named = |a: &AttributeProto| i32::try_from(a.i).ok().and_then(|i| DataType::try_from(i).ok());
    let tensor = |a: &AttributeProto| a.t.as_ref().and_then(|t| DataType::try_from(t.data_type).ok());
    let element = match node.op_type.as_str() {
        "Cast" => given("to").and_then(named),
        "Constant" => node.attribute.first().and_then(|a| match a.name.as_str() {
            "value" => tensor(a),
            "value_float" | "value_floats" => Some(DataType::Float),
            "value_int" | "value_ints" => Some(DataType::Int64),
            _ => None,
        }),
        "ConstantOfShape" => given("value").map_or(Some(DataType::Float), tensor),
        "QuantizeLinear" => match given("output_dtype").filter(|a| a.i != 0) {
            Some(element) => named(element),
            None => Some(DataType::Uint8),
        },
        // that of its scales
        "DequantizeLinear" => match given("output_dtype").filter(|a| a.i != 0) {
            Some(element) => named(element),
            None => known.get("T2").copied(),
        },
        // a sequence is known by what its tensors are made of
        "ConcatFromSequence" | "SequenceAt" | "SequenceConstruct" | "SplitToSequence" => {
            known.get("S").or_else(|| known.get("T")).copied()
        }
        "SequenceEmpty" | "EyeLike" => match given("dtype") {
            Some(element) => named(element),
            None => known.get("T1").copied().or(Some(DataType::Float)),
        },
        // what statistics are computed in
        "LayerNormalization" => given("stash_type").map_or(Some(DataType::Float), named),
        _ => match form.variables.get(variable).map(Vec::as_slice) {
            Some([only]) => Some(*only),
            _ => None,
        },
    };
    element.ok_or_else(|| "the element type of its result is not known".into())
}

fn check_inputs(
    node: &NodeProto,
    form: &Form,
    type_of: TypeOf,
    known: &mut HashMap<&'static str, DataType>,
) -> Result<()> {
    let variadic = form.inputs.last().is_some_and(|p| p.variadic);
    if node.input.len() > form.inputs.len() && !variadic {
        return Err(format!("it has {} inputs, of {} at most", node.input.len(), form.inputs.len()));
    }
    for i in 0..form.inputs.len().max(node.input.len()) {
        let parameter = form.inputs.get(i).or(form.inputs.last()).expect("there is an input");
        let Some(name) = node.input.get(i).filter(|name| !name.is_empty()) else {
            match parameter.optional {
                true => continue,
                false => return Err(format!("its input {i} is missing")),
            }
        };
        let element = type_of(name).expect("it was looked for before");
        let fits = match form.variables.get(parameter.of) {
            Some(allowed) => allowed.contains(&element) && *known.entry(parameter.of).or_insert(element) == element,
            None => element_type(parameter.of) == Some(element),
        };
        if !fits {
            return Err(format!("its input '{}' cannot be of type {element:?} here", shown(name)));
        }
    }
    Ok(())
}

fn is_permutation(order: &[i64]) -> bool {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted.iter().zip(0..).all(|(a, b)| *a == b)
}

fn check_attributes(node: &NodeProto, form: &Form) -> Result<()> {
    for (i, given) in node.attribute.iter().enumerate() {
        let name = shown(&given.name);
        let Some(known) = form.attributes.iter().find(|a| a.name == given.name) else {
            return Err(format!("it has no attribute '{name}' in this opset"));
        };
        if node.attribute[..i].iter().any(|other| other.name == given.name) {
            return Err(format!("its attribute '{name}' is given twice"));
        }
        if !given.ref_attr_name.is_empty() {
            return Err(format!("its attribute '{name}' refers to one of a function, but it is in none"));
        }
        if given.r#type != known.kind as i32 {
            return Err(format!("its attribute '{name}' must be of the kind {:?}", known.kind));
        }
        if FLAGS.contains(&known.name) && !(0..=1).contains(&given.i) {
            return Err(format!("its attribute '{name}' is 0 or 1, not {}", given.i));
        }
        if known.name == "perm" && !is_permutation(&given.ints) {
            return Err("its attribute 'perm' does not name each dimension once".into());
        }
        if let Some(words) = words(&node.op_type, known.name)
            && !words.iter().any(|word| word.as_bytes() == given.s)
        {
            let text = String::from_utf8_lossy(&given.s);
            return Err(format!("its attribute '{name}' is one of {}, not '{}'", words.join(", "), shown(&text)));
        }
    }
    let missing = form.attributes.iter().find(|a| a.required && !node.attribute.iter().any(|g| g.name == a.name));
    match missing {
        Some(missing) => Err(format!("its attribute '{}' is missing", missing.name)),
        None if node.op_type == "Constant" && node.attribute.len() != 1 => Err("it has not one value".into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::OperatorSetIdProto;

    /// `Op(a, b) name=1 other=text`: a node of these inputs and attributes, whose result is `y`.
    fn node(text: &str) -> NodeProto {
        let (op, rest) = text.split_once('(').unwrap();
        let (inputs, attributes) = rest.split_once(')').unwrap();
        let attribute = |text: &str| {
            let (name, value) = text.split_once('=').unwrap();
            let mut a = AttributeProto { name: name.into(), ..Default::default() };
            let kind = if let Ok(i) = value.parse() {
                a.i = i;
                AttributeType::Int
            } else if let Ok(f) = value.parse() {
                a.f = f;
                AttributeType::Float
            } else if let Some(list) = value.strip_prefix('[') {
                a.ints = list.trim_end_matches(']').split(',').map(|i| i.parse().unwrap()).collect();
                AttributeType::Ints
            } else {
                a.s = value.into();
                AttributeType::String
            };
            a.r#type = kind as i32;
            a
        };
        NodeProto {
            op_type: op.into(),
            input: inputs
                .split(',')
                .map(|i| i.trim().into())
                .filter(|i: &String| !inputs.is_empty() || !i.is_empty())
                .collect(),
            output: vec!["y".into()],
            attribute: attributes.split_whitespace().map(attribute).collect(),
            ..Default::default()
        }
    }

    /// A value's type by the first letter of its name.
    fn type_of(name: &str) -> Option<DataType> {
        Some(match name.chars().next()? {
            'f' => DataType::Float,
            'd' => DataType::Double,
            'i' => DataType::Int64,
            'u' => DataType::Uint8,
            'b' => DataType::Bool,
            _ => return None,
        })
    }

    #[test]
    fn nodes_are_what_their_opset_says() {
        use DataType::*;
        // the result's type, or words of the refusal
        let cases: &[(i64, &str, Result<DataType, &str>)] = &[
            (11, "Softmax(f) axis=2", Ok(Float)),
            (13, "Softmax(f) alpha=2", Err("no attribute 'alpha' in this opset")),
            (13, "Softmax(f) axis=2.5", Err("must be of the kind Int")),
            (13, "Softmax(f) axis=1 axis=2", Err("given twice")),
            (13, "Softmax(i)", Err("cannot be of type Int64")),
            (10, "Clip(f) max=0.5", Ok(Float)),
            (11, "Clip(f) max=0.5", Err("no attribute 'max'")),
            (11, "Clip(f, , f2)", Ok(Float)),
            (11, "Clip(f, f, f, f)", Err("has 4 inputs, of 3")),
            (14, "Add(f, f2)", Ok(Float)),
            (14, "Add(f, i)", Err("'i' cannot be of type Int64")),
            (14, "Add(f, d)", Err("'d' cannot be of type Double")),
            (14, "Add(f, )", Err("input 1 is missing")),
            (14, "Add(f)", Err("input 1 is missing")),
            (14, "Add(f, nothing)", Err("nothing in the graph makes its input 'nothing'")),
            (13, "Cast(f) to=7", Ok(Int64)),
            (13, "Cast(f)", Err("'to' is missing")),
            (13, "Cast(f) to=8", Err("cannot be of type String")),
            (13, "Cast(f) to=99", Err("not known")),
            (13, "Less(i, i)", Ok(Bool)),
            (13, "Where(b, f, f)", Ok(Float)),
            (13, "Where(f, f, f)", Err("cannot be of type Float")),
            (13, "Gather(f, f)", Err("cannot be of type Float")),
            (13, "Shape(f)", Ok(Int64)),
            (13, "Shape(f) start=1", Err("no attribute 'start'")),
            (15, "Shape(f) start=1", Ok(Int64)),
            (13, "Reshape(f, i) allowzero=1", Err("no attribute")),
            (14, "Reshape(f, i) allowzero=2", Err("is 0 or 1, not 2")),
            (13, "QuantizeLinear(f, f)", Ok(Uint8)),
            (21, "QuantizeLinear(f, f) output_dtype=3", Ok(Int8)),
            (13, "DequantizeLinear(u, f, u)", Ok(Float)),
            (23, "DequantizeLinear(u, f, u)", Ok(Float)),
            (13, "DequantizeLinear(u, f, f)", Err("cannot be of type Float")),
            (19, "Resize(f, , f) mode=bilinear", Err("is one of nearest, linear, cubic, not 'bilinear'")),
            (17, "Resize(f, , f) axes=[2,3]", Err("no attribute 'axes'")),
            (18, "Resize(f, , f) axes=[2,3]", Ok(Float)),
            (13, "Transpose(f) perm=[0,2,1]", Ok(Float)),
            (13, "Transpose(f) perm=[0,2,2]", Err("does not name each dimension once")),
            (13, "Concat(f, f, f, f) axis=1", Ok(Float)),
            (13, "Concat(f, i) axis=1", Err("'i' cannot be")),
            (13, "Mod(i, i)", Ok(Int64)),
            (13, "Mod(f, f)", Err("floats need its attribute 'fmod'")),
            (13, "Mod(f, f) fmod=1", Ok(Float)),
            (9, "Upsample(f, f)", Ok(Float)),
            (10, "Upsample(f, f)", Err("no such operator in opset 10")),
            (17, "Mish(f)", Err("no such operator in opset 17")),
            (13, "ConstantOfShape(i)", Ok(Float)),
        ];
        for (opset, text, expected) in cases {
            match (result_types(&node(text), *opset, &type_of), expected) {
                (Ok(types), Ok(element)) => assert_eq!(types, [*element], "{text}"),
                (Err(line), Err(words)) => assert!(line.contains(words) && !line.contains('\n'), "{text}: {line}"),
                (other, expected) => panic!("{text} in opset {opset}: {other:?} is not {expected:?}"),
            }
        }
    }

    fn model(opsets: &[(&str, i64)], nodes: &[NodeProto], stored: &[&str]) -> ModelProto {
        let tensor = |name: &&str| TensorProto { name: (*name).into(), data_type: 1, ..Default::default() };
        let import =
            |(domain, version): &(&str, i64)| OperatorSetIdProto { domain: (*domain).into(), version: *version };
        let graph = GraphProto {
            node: nodes.to_vec(),
            initializer: stored.iter().map(tensor).collect(),
            output: vec![crate::pb::ValueInfoProto { name: "y".into(), ..Default::default() }],
            ..Default::default()
        };
        ModelProto { graph: Some(graph), opset_import: opsets.iter().map(import).collect(), ..Default::default() }
    }

    #[test]
    fn models_are_checked_as_a_whole() {
        let relu = node("Relu(f)");
        let elsewhere = NodeProto { domain: "nowhere".into(), ..relu.clone() };
        let unknown = node("Unique(f)");
        // opsets, nodes, stored tensors, and what is said of them
        type Case<'a> = (&'a [(&'a str, i64)], &'a [NodeProto], &'a [&'a str], &'a str);
        let cases: &[Case] = &[
            (&[("", 17)], std::slice::from_ref(&relu), &["f"], ""),
            (&[("ai.onnx", 17), ("com.microsoft", 1)], std::slice::from_ref(&relu), &["f"], ""),
            (&[], std::slice::from_ref(&relu), &["f"], "does not say which opset"),
            (&[("", 17), ("ai.onnx", 18)], std::slice::from_ref(&relu), &["f"], "two opsets"),
            (&[("", 6)], std::slice::from_ref(&relu), &["f"], "opset 6"),
            (&[("", 99)], std::slice::from_ref(&relu), &["f"], "opset 99"),
            (&[("", 17)], std::slice::from_ref(&relu), &["f", "f"], "stores two tensors as 'f'"),
            (&[("", 17)], std::slice::from_ref(&relu), &["f", "y"], "makes 'y' twice"),
            (&[("", 17)], &[relu.clone(), relu.clone()], &["f"], "makes 'y' twice"),
            (&[("", 17)], &[], &["f"], "nothing in the graph makes its output 'y'"),
            (&[("", 17)], std::slice::from_ref(&relu), &[], "makes its input 'f'"),
            (&[("", 17)], &[elsewhere, unknown], &["f"], "not supported in opset 17: Unique, nowhere.Relu"),
        ];
        for (opsets, nodes, stored, words) in cases {
            match check(&mut model(opsets, nodes, stored)) {
                Ok(()) => assert!(words.is_empty(), "is not refused: {words}"),
                Err(line) => assert!(!words.is_empty() && line.contains(words), "{line} is not {words}"),
            }
        }
    }

    #[test]
    fn names_stay_short_and_on_the_line() {
        let bad = NodeProto { op_type: "Bad\n".into(), name: "n".repeat(10_000), ..Default::default() };
        let line = check(&mut model(&[("", 17)], &[bad], &[])).unwrap_err();
        assert!(!line.contains('\n') && line.len() < 200, "{line}");
    }
}
