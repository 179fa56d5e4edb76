//! Whether a model file is the one that was meant: its SHA-256.

use crate::error::model_error;
use crate::{Error, Result};
use ::onnx::pb;
use sha2::{Digest, Sha256};

/// The bytes that these 64 hexadecimal digits stand for.
///
/// # Errors
/// When they are not that.
pub(super) fn parse(text: &str) -> Result<[u8; 32]> {
    let wrong = || Error::invalid("a SHA-256 is 64 hexadecimal digits, as sha256sum prints them");
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>().ok_or_else(wrong)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64).ok_or_else(wrong)
}

/// # Errors
/// When the bytes have another SHA-256.
pub(super) fn check(bytes: &[u8], expected: &[u8; 32]) -> Result<()> {
    let found: [u8; 32] = Sha256::digest(bytes).into();
    if found == *expected {
        return Ok(());
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Err(model_error(format!("the file's SHA-256 is {}, not {}: it is another file", hex(&found), hex(expected))))
}

/// # Errors
/// When the model has weights in other files, which the digest of this one says nothing of.
pub(super) fn check_whole(graph: &pb::GraphProto) -> Result<()> {
    match graph.initializer.iter().find(|tensor| !tensor.external_data.is_empty()) {
        None => Ok(()),
        Some(tensor) => Err(model_error(format!(
            "{} lies in another file, which this file's SHA-256 says nothing of: save the model as one file",
            tensor.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_standard() {
        // FIPS 180-4, its example of "abc"
        let abc = parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015AD").unwrap();
        check(b"abc", &abc).unwrap();
        let error = check(b"abd", &abc).unwrap_err().to_string();
        assert!(error.contains("not ba7816bf") && error.contains("another file"), "{error}");
        for wrong in ["", "ba78", &"g".repeat(64), &"a".repeat(63), &"é".repeat(32), &"a".repeat(66)] {
            assert!(parse(wrong).unwrap_err().to_string().contains("64 hexadecimal digits"), "{wrong}");
        }
    }
}
