//! Convolutions, pools and resizing of volumes, `[N, C, D, H, W]`: as those of images, one after the other along their depth.

use super::normalization::from_the_start;
use super::writer::{ints, signed};
use super::{Known, Writer, shape, unknown};
use crate::Result;
use crate::pb::{AttributeProto, GraphProto, NodeProto};

/// Whether a node may be of volumes, as far as it, the dimensions of the stored tensors that it reads and the graph's inputs
/// say.
pub fn is_candidate<'g>(node: &NodeProto, graph: &GraphProto, stored: impl Fn(&str) -> Option<&'g [i64]>) -> bool {
    let named = node.ints("kernel_shape").map(<[i64]>::len);
    let of_weights = || node.given(1).and_then(stored).map(|dims| dims.len().saturating_sub(2));
    match node.op_type.as_str() {
        "Conv" | "ConvTranspose" => named.or_else(of_weights) == Some(3),
        "MaxPool" | "AveragePool" => named == Some(3),
        "GlobalAveragePool" | "GlobalMaxPool" | "Resize" => graph.input.iter().any(|x| rank(x) == Some(5)),
        _ => false,
    }
}

fn rank(x: &crate::pb::ValueInfoProto) -> Option<usize> {
    use crate::pb::type_proto::Value;
    let Value::TensorType(tensor) = x.r#type.as_ref()?.value.as_ref()?;
    Some(tensor.shape.as_ref()?.dim.len())
}

/// The nodes that stand for one of volumes.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let Some(&[n, c, d, h, w]) = node.given(0).and_then(|x| known.dims(x)) else { return Ok(None) };
    // before that, what is done here has other forms
    if known.opset() < 11 {
        return Ok(None);
    }
    let volume = Volume { n, c, d, h, w };
    let mut writer = Writer::new(node, known);
    let result = match node.op_type.as_str() {
        "Conv" => convolution(&mut writer, node, known, volume)?,
        "ConvTranspose" => transposed(&mut writer, node, known, volume)?,
        "MaxPool" | "AveragePool" if node.result(1).is_none() => pool(&mut writer, node, volume)?,
        "GlobalAveragePool" | "GlobalMaxPool" => global_pool(&mut writer, node, volume),
        "Resize" => resize(&mut writer, node, known, volume)?,
        _ => None,
    };
    Ok(result.map(|result| writer.finish_one(node, result)))
}

/// The sizes of volumes.
#[derive(Clone, Copy)]
struct Volume {
    n: usize,
    c: usize,
    d: usize,
    h: usize,
    w: usize,
}

impl Volume {
    /// Volumes `[N, C, D, H, W]` as `[N, D, C, H, W]`.
    fn by_depth(w: &mut Writer, x: &str) -> String {
        w.transpose(x, &[0, 2, 1, 3, 4])
    }

    /// Those as images.
    fn images(self, w: &mut Writer, x: &str) -> String {
        w.reshape(x, &[self.n * self.d, self.c, self.h, self.w])
    }

    /// Images as `[N, D, C, H, W]`.
    fn of_images(self, w: &mut Writer, x: &str) -> String {
        w.reshape(x, &[self.n, self.d, self.c, self.h, self.w])
    }

    /// Volumes as images of a row for each depth.
    fn as_rows(self, w: &mut Writer, x: &str) -> String {
        w.reshape(x, &[self.n, self.c, self.d, self.h * self.w])
    }
}

/// What a window does along one side.
#[derive(Clone, Copy)]
struct Side {
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
}

impl Side {
    fn extent(self) -> Option<usize> {
        self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)
    }

    /// The results along a side of `n` numbers.
    fn results(self, n: usize) -> Option<usize> {
        let whole = n.checked_add(self.before)?.checked_add(self.after)?;
        Some(whole.checked_sub(self.extent()?)? / self.stride + 1)
    }
}

/// What a node says of its window's three sides, over so many numbers each.
fn sides(node: &NodeProto, kernel: &[usize], image: [usize; 3]) -> Option<[Side; 3]> {
    let of = |name: &str, default: i64, i: usize| {
        let value = node.ints(name).map_or(Some(default), |all| all.get(i).copied())?;
        usize::try_from(value).ok()
    };
    let same = match node.text("auto_pad") {
        None | Some("" | "NOTSET") => None,
        Some("VALID") => Some(false),
        Some("SAME_UPPER" | "SAME_LOWER") => Some(true),
        Some(_) => return None,
    };
    let mut all = Vec::new();
    for (i, n) in image.into_iter().enumerate() {
        let [stride, dilation] = [of("strides", 1, i)?, of("dilations", 1, i)?];
        let mut side = Side { kernel: *kernel.get(i)?, stride, dilation, before: 0, after: 0 };
        if side.kernel == 0 || stride == 0 || dilation == 0 {
            return None;
        }
        match same {
            None => (side.before, side.after) = (of("pads", 0, i)?, of("pads", 0, i + 3)?),
            Some(false) => {}
            Some(true) => {
                let last = n.div_ceil(stride).checked_sub(1)?.checked_mul(stride)?;
                let total = last.checked_add(side.extent()?)?.saturating_sub(n);
                let less = total / 2;
                let lower = node.text("auto_pad") == Some("SAME_LOWER");
                (side.before, side.after) = if lower { (total - less, less) } else { (less, total - less) };
            }
        }
        all.push(side);
    }
    all.try_into().ok()
}

/// The attributes of a convolution of images by the last two sides of a window.
fn of_images(node: &NodeProto, [rows, columns]: [Side; 2]) -> Vec<AttributeProto> {
    let pads = [rows.before, columns.before, rows.after, columns.after];
    let two = |name: &str, of: fn(Side) -> usize| ints(name, &signed(&[of(rows), of(columns)]));
    let mut all: Vec<AttributeProto> = node.attribute.iter().filter(|a| a.name == "group").cloned().collect();
    all.extend([
        two("strides", |s| s.stride),
        two("dilations", |s| s.dilation),
        two("kernel_shape", |s| s.kernel),
        ints("pads", &signed(&pads)),
    ]);
    all
}

/// The weights of one tap along the depth.
fn tap(w: &mut Writer, weights: &str, k: usize) -> String {
    let index = w.integers(&[], &[k as i64]);
    w.with("Gather", &[weights, &index], vec![super::writer::int("axis", 2)])
}

/// So many zeros before and after the numbers of dimension `axis` of so many.
fn padded(w: &mut Writer, x: &str, (axis, rank): (usize, usize), [before, after]: [usize; 2]) -> String {
    if [before, after] == [0, 0] {
        return x.to_string();
    }
    let mut pads = vec![0; 2 * rank];
    (pads[axis], pads[rank + axis]) = (before as i64, after as i64);
    let pads = w.list(&pads);
    w.op("Pad", &[x, &pads])
}

/// A convolution of the images that each tap of the kernel's depth falls on, added up.
fn convolution(w: &mut Writer, node: &NodeProto, known: &dyn Known, v: Volume) -> Result<Option<String>> {
    let weights = shape(node, known, 1)?;
    let Some(kernel) = weights.get(2..) else { return Ok(None) };
    let Some([depth, rows, columns]) = sides(node, kernel, [v.d, v.h, v.w]) else { return Ok(None) };
    let results = depth.results(v.d).zip(rows.results(v.h)).zip(columns.results(v.w));
    let Some(((d, h), wide)) = results else { return Ok(None) };
    let by_depth = Volume::by_depth(w, node.given(0).unwrap_or_default());
    let whole = padded(w, &by_depth, (1, 5), [depth.before, depth.after]);
    let mut sum: Option<String> = None;
    for k in 0..depth.kernel {
        let first = k * depth.dilation;
        let these = sliced(w, &whole, 1, [first, first + (d - 1) * depth.stride + 1, depth.stride]);
        let images = Volume { d, ..v }.images(w, &these);
        let of_tap = tap(w, node.given(1).unwrap_or_default(), k);
        let bias = node.given(2).filter(|_| k == 0);
        let inputs: Vec<&str> = [images.as_str(), &of_tap].into_iter().chain(bias).collect();
        let made = w.with("Conv", &inputs, of_images(node, [rows, columns]));
        sum = Some(sum.map_or(made.clone(), |sum| w.op("Add", &[&sum, &made])));
    }
    let Some(sum) = sum else { return Ok(None) };
    let result = Volume { c: weights[0], d, h, w: wide, ..v }.of_images(w, &sum);
    Ok(Some(Volume::by_depth(w, &result)))
}

/// From the first to before the end of dimension `axis`, by steps.
fn sliced(w: &mut Writer, x: &str, axis: usize, [first, end, step]: [usize; 3]) -> String {
    let [first, end, axis, step] = [first, end, axis, step].map(|v| w.list(&[v as i64]));
    w.op("Slice", &[x, &first, &end, &axis, &step])
}

/// What each tap of the kernel's depth makes of all images, put where it falls, added up.
fn transposed(w: &mut Writer, node: &NodeProto, known: &dyn Known, v: Volume) -> Result<Option<String>> {
    let weights = shape(node, known, 1)?;
    let Some(kernel) = weights.get(2..) else { return Ok(None) };
    let automatic = node.text("auto_pad").is_some_and(|pad| !pad.is_empty() && pad != "NOTSET");
    let Some([depth, rows, columns]) = sides(node, kernel, [v.d, v.h, v.w]) else { return Ok(None) };
    if automatic || node.attribute("output_shape").is_some() {
        return Ok(None);
    }
    let added = |i: usize| {
        let given = node.ints("output_padding").and_then(|all| all.get(i)).copied().unwrap_or(0);
        usize::try_from(given).ok()
    };
    let results = |i: usize, side: Side, n: usize| {
        let far = n.checked_sub(1)?.checked_mul(side.stride)?.checked_add(side.extent()?)?;
        far.checked_add(added(i)?)?.checked_sub(side.before.checked_add(side.after)?).filter(|n| *n > 0)
    };
    let sizes = results(0, depth, v.d).zip(results(1, rows, v.h)).zip(results(2, columns, v.w));
    let groups = node.int("group").and_then(|g| usize::try_from(g).ok()).unwrap_or(1);
    let Some((((d, h), wide), c)) = sizes.zip(weights[1].checked_mul(groups)) else { return Ok(None) };
    let by_depth = Volume::by_depth(w, node.given(0).unwrap_or_default());
    let images = v.images(w, &by_depth);
    let mut attributes = of_images(node, [rows, columns]);
    let added = [added(1), added(2)].map(Option::unwrap_or_default);
    attributes.push(ints("output_padding", &signed(&added)));
    let each = c * h * wide;
    // the images of a tap lie a stride apart
    let apart = v.d * depth.stride;
    let mut sum: Option<String> = None;
    for k in 0..depth.kernel {
        let of_tap = tap(w, node.given(1).unwrap_or_default(), k);
        let made = w.with("ConvTranspose", &[&images, &of_tap], attributes.clone());
        let single = w.reshape(&made, &[v.n, v.d, 1, each]);
        let spread = padded(w, &single, (2, 4), [0, depth.stride - 1]);
        let spread = w.reshape(&spread, &[v.n, apart, each]);
        let (before, cut) =
            ((k * depth.dilation).saturating_sub(depth.before), depth.before.saturating_sub(k * depth.dilation));
        let length = apart.saturating_sub(cut).min(d.saturating_sub(before));
        if length == 0 {
            continue;
        }
        let kept = sliced(w, &spread, 1, [cut, cut + length, 1]);
        let placed = padded(w, &kept, (1, 3), [before, d - before - length]);
        sum = Some(sum.map_or(placed.clone(), |sum| w.op("Add", &[&sum, &placed])));
    }
    let Some(sum) = sum else { return Ok(None) };
    let made = w.reshape(&sum, &[v.n, d, c, h, wide]);
    let mut result = Volume::by_depth(w, &made);
    if let Some(bias) = node.given(2) {
        let bias = w.reshape(bias, &[c, 1, 1, 1]);
        result = w.op("Add", &[&result, &bias]);
    }
    Ok(Some(result))
}

/// A pool of images, and then of what it makes along the depth: the greatest of the greatest, and the mean of means of as many.
fn pool(w: &mut Writer, node: &NodeProto, v: Volume) -> Result<Option<String>> {
    let kernel: Option<Vec<usize>> =
        node.ints("kernel_shape").map(|all| all.iter().filter_map(|k| usize::try_from(*k).ok()).collect());
    let Some([depth, rows, columns]) = kernel.and_then(|kernel| sides(node, &kernel, [v.d, v.h, v.w])) else {
        return Ok(None);
    };
    let ceil = node.int("ceil_mode").unwrap_or(0) != 0;
    let results = |side: Side, n: usize| {
        let whole = n.checked_add(side.before)?.checked_add(side.after)?.checked_sub(side.extent()?)?;
        let count = if ceil { whole.div_ceil(side.stride) } else { whole / side.stride } + 1;
        let beyond = ceil && (count - 1).checked_mul(side.stride)? >= n.checked_add(side.before)?;
        Some(if beyond { count - 1 } else { count })
    };
    let sizes = results(depth, v.d).zip(results(rows, v.h)).zip(results(columns, v.w));
    let Some(((d, h), wide)) = sizes else { return Ok(None) };
    let kept = ["ceil_mode", "count_include_pad"];
    let common = || node.attribute.iter().filter(|a| kept.contains(&a.name.as_str())).cloned();
    // dilations of means came late
    let dilated = [depth, rows, columns].iter().any(|side| side.dilation != 1);
    let attributes = |sides: [Side; 2]| -> Vec<AttributeProto> {
        let all =
            of_images(node, sides).into_iter().filter(|a| a.name != "group" && (dilated || a.name != "dilations"));
        all.chain(common()).collect()
    };
    const ONE: Side = Side { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };
    let by_depth = Volume::by_depth(w, node.given(0).unwrap_or_default());
    let images = v.images(w, &by_depth);
    let pooled = w.with(&node.op_type, &[&images], attributes([rows, columns]));
    let flat = Volume { h, w: wide, ..v };
    let made = flat.of_images(w, &pooled);
    let made = Volume::by_depth(w, &made);
    let lines = flat.as_rows(w, &made);
    let pooled = w.with(&node.op_type, &[&lines], attributes([depth, ONE]));
    Ok(Some(w.reshape(&pooled, &[v.n, v.c, d, h, wide])))
}

fn global_pool(w: &mut Writer, node: &NodeProto, v: Volume) -> Option<String> {
    let flat = v.as_rows(w, node.given(0).unwrap_or_default());
    let pooled = w.op(&node.op_type, &[&flat]);
    Some(w.reshape(&pooled, &[v.n, v.c, 1, 1, 1]))
}

/// Images of another size, and then volumes of another depth.
fn resize(w: &mut Writer, node: &NodeProto, known: &dyn Known, v: Volume) -> Result<Option<String>> {
    let stretched = node.text("keep_aspect_ratio_policy").is_none_or(|policy| policy == "stretch");
    if !stretched || node.text("coordinate_transformation_mode") == Some("tf_crop_and_resize") {
        return Ok(None);
    }
    let axes = match node.ints("axes") {
        Some(axes) => axes.iter().map(|a| from_the_start(*a, 5)).collect::<Result<Vec<_>>>()?,
        None => (0..5).collect(),
    };
    let before = [v.n, v.c, v.d, v.h, v.w];
    let by_sizes = node.given(3).is_some();
    let name = node.given(if by_sizes { 3 } else { 2 }).unwrap_or_default();
    let scales = if by_sizes { None } else { known.floats(name) };
    let sizes: Option<Vec<usize>> = match &scales {
        // in f32, as it is defined
        Some(scales) => {
            let size = |(axis, scale): (&usize, &f32)| (before[*axis] as f32 * scale).floor();
            let whole = |n: f32| (1.0..1e9).contains(&n).then_some(n as usize);
            axes.iter().zip(scales).map(size).map(whole).collect()
        }
        None => known.integers(name).and_then(|all| all.into_iter().map(|n| usize::try_from(n).ok()).collect()),
    };
    let Some(sizes) = sizes.filter(|sizes| sizes.len() == axes.len() && !sizes.contains(&0)) else { return Ok(None) };
    let mut after = before;
    axes.iter().zip(sizes).for_each(|(axis, size)| after[*axis] = size);
    let scale = |axis: usize| {
        let scales = scales.as_ref()?;
        axes.iter().position(|a| *a == axis).and_then(|i| scales.get(i).copied())
    };
    if after[..2] != before[..2] || [0, 1].iter().any(|axis| scale(*axis).is_some_and(|s| s != 1.0)) {
        return Err(unknown("a resized batch, or channels,"));
    }
    let attributes: Vec<AttributeProto> =
        node.attribute.iter().filter(|a| a.name != "axes" && a.name != "keep_aspect_ratio_policy").cloned().collect();
    let resized = |w: &mut Writer, x: &str, sides: [(usize, usize, Option<f32>); 4]| {
        let whole = sides.map(|(_, n, _)| n);
        if sides.iter().all(|(from, to, scale)| from == to && scale.is_none_or(|s| s == 1.0)) {
            return x.to_string();
        }
        if by_sizes {
            let sizes = w.list(&signed(&whole));
            return w.with("Resize", &[x, "", "", &sizes], attributes.clone());
        }
        let scales = w.floats(&[4], &sides.map(|(_, _, scale)| scale.unwrap_or(1.0)));
        w.with("Resize", &[x, "", &scales], attributes.clone())
    };
    let by_depth = Volume::by_depth(w, node.given(0).unwrap_or_default());
    let images = v.images(w, &by_depth);
    let count = v.n * v.d;
    let (h, wide) = (after[3], after[4]);
    let images =
        resized(w, &images, [(count, count, None), (v.c, v.c, None), (v.h, h, scale(3)), (v.w, wide, scale(4))]);
    let flat = Volume { h, w: wide, ..v };
    let made = flat.of_images(w, &images);
    let made = Volume::by_depth(w, &made);
    let lines = flat.as_rows(w, &made);
    let area = h * wide;
    let lines = resized(w, &lines, [(v.n, v.n, None), (v.c, v.c, None), (v.d, after[2], scale(2)), (area, area, None)]);
    Ok(Some(w.reshape(&lines, &after)))
}
