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
    macro_rules! numbers {
        ($t:ty) => {{
            let number = if order == ">" { <$t>::from_be_bytes } else { <$t>::from_le_bytes };
            let (all, rest) = data.as_chunks();
            (all.len(), rest.is_empty(), Box::new(all.iter().map(move |b| number(*b) as f32)))
        }};
    }
    let (held, whole, numbers): (usize, bool, Box<dyn Iterator<Item = f32>>) = match kind {
        _ if !["<", ">", "=", "|"].contains(&order) => return Err(unknown(&descr)),
        "f4" => numbers!(f32),
        "f8" => numbers!(f64),
        "i4" => numbers!(i32),
        "i8" => numbers!(i64),
        _ => return Err(unknown(&descr)),
    };
    let promised = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match promised {
        Some(n) if n == held && whole => Ok((shape, numbers.collect())),
        Some(n) if n <= held => Err("the file is longer than its header says".into()),
        _ => Err("the file is shorter than its header says".into()),
    }
}

fn unknown(descr: &str) -> String {
    format!("its numbers are '{descr}', but must be float32, float64, int32 or int64")
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
        let cases: [(&str, Vec<u8>); 5] = [
            ("<f4", [1.5f32, -2.0].map(f32::to_le_bytes).concat()),
            (">f4", [1.5f32, -2.0].map(f32::to_be_bytes).concat()),
            ("<f8", [1.5f64, -2.0].map(f64::to_le_bytes).concat()),
            ("<i4", [1i32, -2].map(i32::to_le_bytes).concat()),
            (">i8", [1i64, -2].map(i64::to_be_bytes).concat()),
        ];
        for (descr, data) in cases {
            let (shape, numbers) = decode(&file(&header(descr), &data)).unwrap();
            assert_eq!((shape, numbers[0].trunc(), numbers[1]), (vec![2], 1.0, -2.0), "{descr}");
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
