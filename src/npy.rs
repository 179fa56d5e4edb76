//! numpy's file format for arrays: a magic number and a version, a header in the form of a Python dictionary, and the
//! numbers. (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>)

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read: that of an array of numbers has about a hundred bytes.
const LONGEST_HEADER: usize = 1 << 14;

/// The shape and the numbers of the array in `file`, in C order.
///
/// # Errors
/// What is wrong with the file. Nothing is allocated on the word of its header alone.
pub(crate) fn decode(file: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let (header, data) = split(file).ok_or("it is not an npy file")?;
    if header.len() > LONGEST_HEADER {
        return Err(format!("its header has {} bytes, which is no array's of numbers", header.len()));
    }
    let Header { descr, fortran_order, shape } =
        std::str::from_utf8(header).ok().and_then(Header::parse).ok_or("its header cannot be read")?;
    if fortran_order {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    // the byte order (of one byte, none), and the type
    let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
    let one_byte = ["b1", "u1", "i1"].contains(&kind);
    if !(["<", ">", "="].contains(&order) || (order == "|" && one_byte)) {
        return Err(unknown(&descr));
    }
    macro_rules! numbers {
        ($t:ty, $as_f32:expr) => {{
            let number = if order == ">" { <$t>::from_be_bytes } else { <$t>::from_le_bytes };
            let (all, rest) = data.as_chunks();
            let convert: fn($t) -> Option<f32> = $as_f32;
            let numbers: Numbers =
                Box::new(all.iter().map(move |b| convert(number(*b)).ok_or_else(|| inexact(number(*b)))));
            (all.len(), rest.is_empty(), numbers)
        }};
    }
    macro_rules! whole {
        // beyond 2^24 not every whole number is one of f32's
        ($t:ty) => {
            numbers!($t, |v| Some(v as f32).filter(|f| *f as $t == v && *f as i128 == v as i128))
        };
    }
    let (held, whole, numbers): (usize, bool, Numbers) = match kind {
        "f2" => numbers!(u16, |v| Some(half_to_f32(v))),
        "f4" => numbers!(f32, Some),
        "f8" => numbers!(f64, |v| Some(v as f32)),
        "b1" => numbers!(u8, |v| Some(if v == 0 { 0.0 } else { 1.0 })),
        "u1" => whole!(u8),
        "i1" => whole!(i8),
        "u2" => whole!(u16),
        "i2" => whole!(i16),
        "u4" => whole!(u32),
        "i4" => whole!(i32),
        "u8" => whole!(u64),
        "i8" => whole!(i64),
        _ => return Err(unknown(&descr)),
    };
    let promised = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match promised {
        Some(n) if n == held && whole => Ok((shape, numbers.collect::<Result<_, _>>()?)),
        Some(n) if n <= held => Err("the file is longer than its header says".into()),
        _ => Err("the file is shorter than its header says".into()),
    }
}

/// Numbers as they are read, or what is wrong with one.
type Numbers<'a> = Box<dyn Iterator<Item = Result<f32, String>> + 'a>;

fn unknown(descr: &str) -> String {
    format!("its numbers are '{descr}', but must be bool, integers of 8 to 64 bits, or floats of 16, 32 or 64")
}

fn inexact(number: impl std::fmt::Display) -> String {
    format!(
        "its number {number} cannot be told apart from its neighbours in float32, which everything here is computed in"
    )
}

/// A float of 16 bits.
fn half_to_f32(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let size = match exponent {
        // without a leading 1, in units of 2^-24
        0 => fraction * 2.0f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2.0f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// The header and the data.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (version, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (len, rest) = match version {
        [1, _] => rest.split_first_chunk().map(|(len, rest)| (u32::from(u16::from_le_bytes(*len)), rest))?,
        [2 | 3, _] => rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len), rest))?,
        _ => return None,
    };
    rest.split_at_checked(usize::try_from(len).ok()?)
}

/// What a header says.
#[derive(Debug, Default, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, with the keys in any order.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" => {
                    let (value, after) = quoted(rest)?;
                    (descr, rest) = (Some(value.to_string()), after);
                }
                "fortran_order" => {
                    let word = |word: &str| rest.strip_prefix(word);
                    let (value, after) = word("True").map(|r| (true, r)).or(word("False").map(|r| (false, r)))?;
                    (fortran_order, rest) = (Some(value), after);
                }
                "shape" => {
                    let (list, after) = rest.strip_prefix('(')?.split_once(')')?;
                    let list = list.trim().strip_suffix(',').unwrap_or(list.trim());
                    let numbers = list.split(',').filter(|_| !list.is_empty()).map(|n| n.trim().parse().ok());
                    (shape, rest) = (Some(numbers.collect::<Option<Vec<usize>>>()?), after);
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// The text between the quotation marks that `text` begins with, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(mark)
}

/// An array of this shape as a file.
pub(crate) fn encode<'a>(shape: &[usize], numbers: impl IntoIterator<Item = &'a f32>) -> Vec<u8> {
    // a tuple of one has a comma
    let dims: Vec<String> = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    // the numbers begin at a multiple of 64
    let before = MAGIC.len() + 4;
    let len = (before + header.len() + 1).next_multiple_of(64) - before;
    header.extend(std::iter::repeat_n(' ', len - 1 - header.len()));
    header.push('\n');
    let mut file = Vec::with_capacity(before + len + 4 * shape.iter().product::<usize>());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[1, 0]);
    file.extend_from_slice(&(len as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    numbers.into_iter().for_each(|v| file.extend_from_slice(&v.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_come_back() {
        for shape in [vec![], vec![3], vec![2, 3, 1], vec![0, 4]] {
            let numbers: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32 - 0.5).collect();
            let file = encode(&shape, &numbers);
            assert_eq!((file.len() - 4 * numbers.len()) % 64, 0);
            assert_eq!(decode(&file).unwrap(), (shape, numbers));
        }
    }

    #[test]
    fn numbers_of_every_kind_become_floats() {
        let header = |descr: &str| format!("{{\"shape\": (2,), 'descr': '{descr}', 'fortran_order': False}}\n");
        let cases: [(&str, Vec<u8>); 12] = [
            ("<f2", [0x3e00u16, 0xc000].map(u16::to_le_bytes).concat()),
            ("|i1", vec![1, (-2i8) as u8]),
            ("<i2", [1i16, -2].map(i16::to_le_bytes).concat()),
            ("<f4", [1.5f32, -2.0].map(f32::to_le_bytes).concat()),
            (">f4", [1.5f32, -2.0].map(f32::to_be_bytes).concat()),
            ("<f8", [1.5f64, -2.0].map(f64::to_le_bytes).concat()),
            ("<i4", [1i32, -2].map(i32::to_le_bytes).concat()),
            (">i8", [1i64, -2].map(i64::to_be_bytes).concat()),
            ("<u2", [1u16, 2].map(u16::to_le_bytes).concat()),
            ("<u4", [1u32, 2].map(u32::to_le_bytes).concat()),
            (">u8", [1u64, 2].map(u64::to_be_bytes).concat()),
            ("|u1", vec![1, 2]),
        ];
        for (descr, data) in cases {
            let (shape, numbers) = decode(&file(&header(descr), &data)).unwrap();
            let second = if descr.contains('u') { 2.0 } else { -2.0 };
            assert_eq!((shape, numbers[0].trunc(), numbers[1]), (vec![2], 1.0, second), "{descr}");
        }
        assert_eq!(decode(&file(&header("|b1"), &[1, 0])).unwrap().1, [1.0, 0.0]);
    }

    #[test]
    fn floats_of_16_bits_are_those_of_ieee() {
        let cases = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x0001, 2.0f32.powi(-24)),
            (0x03ff, 1023.0 * 2.0f32.powi(-24)),
            (0x0400, 2.0f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, number) in cases {
            assert_eq!(half_to_f32(bits).to_bits(), f32::to_bits(number), "{bits:x}");
        }
        assert!(half_to_f32(0xfe00).is_nan());
    }

    #[test]
    fn whole_numbers_that_f32_does_not_hold_are_refused() {
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }";
        let read = |v: i64| decode(&file(header, &v.to_le_bytes()));
        assert_eq!(read(1 << 24).unwrap().1, [(1 << 24) as f32]);
        assert_eq!(read(i64::MIN).unwrap().1, [i64::MIN as f32]);
        for v in [(1 << 24) + 1, i64::MAX] {
            assert!(read(v).unwrap_err().contains(&format!("its number {v} cannot be told apart")));
        }
    }

    #[test]
    fn what_is_no_array_or_promises_too_much_is_an_error() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert!(decode(&file(good, &[0; 8])).is_ok());
        let cases: [(Vec<u8>, &str); 14] = [
            (file(good, &[0; 7]), "shorter"),
            (file(good, &[0; 9]), "longer"),
            (file(&good.replace("2,", "2, 4611686018427387904, 4"), &[0; 8]), "shorter"),
            (file(&good.replace("2,", "-2,"), &[0; 8]), "header cannot be read"),
            (file(&good.replace("False", "True"), &[0; 8]), "Fortran"),
            (file(&good.replace("<f4", "<c8"), &[0; 8]), "'<c8'"),
            (file(&good.replace("<f4", ""), &[0; 8]), "''"),
            (file(&good.replace("'shape'", "'size'"), &[0; 8]), "header cannot be read"),
            (file("{'descr': '<f4'}", &[0; 8]), "header cannot be read"),
            (file("{'descr': '<f4", &[0; 8]), "header cannot be read"),
            (file(&" ".repeat(60_000), &[0; 8]), "60000 bytes"),
            ([MAGIC, &[2, 0], &u32::MAX.to_le_bytes(), b"{"].concat(), "not an npy file"),
            (MAGIC.to_vec(), "not an npy file"),
            (b"PK".to_vec(), "not an npy file"),
        ];
        for (file, words) in cases {
            let error = decode(&file).unwrap_err();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
        }
    }
}
