//! The check of one node, and the element types of its results.

use super::table::{Form, element_type, form};
use super::{TypeOf, called, nested, shown};
use crate::Result;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, NodeProto};
use std::collections::HashMap;

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

/// Whether a node is of those quantized operators of onnxruntime's that [`qoperator`](crate::qoperator) rewrites.
fn is_quantized(node: &NodeProto) -> bool {
    node.domain == "com.microsoft" && (node.op_type.starts_with("QLinear") || node.op_type == "QGemm")
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
pub(super) fn result_type(
    node: &NodeProto,
    form: &Form,
    i: usize,
    known: &HashMap<&str, DataType>,
) -> Result<DataType> {
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
pub(super) mod tests {
    use super::*;

    /// `Op(a, b) name=1 other=text`: a node of these inputs and attributes, whose result is `y`.
    pub fn node(text: &str) -> NodeProto {
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
}
