//! Files that are named from outside: a pipe that nobody writes into, a device without an end or a file of gigabytes must
//! not keep the program.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// The most bytes of a configuration.
pub(crate) const MOST_TEXT: u64 = 1 << 26;

/// The bytes of a file, which has at most so many.
///
/// Of what is no regular file, only descriptors that the process was given are read: `/dev/stdin`, and a shell's `<(…)`.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    let given = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|given| path.starts_with(given));
    if about.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "it is a folder"));
    }
    if !about.is_file() && !given {
        return Err(Error::other("it is no regular file"));
    }
    let too_large = || Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes"));
    if about.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // where there is no memory for it, an error instead of an abort
    bytes.try_reserve_exact(usize::try_from(about.len()).map_err(|_| too_large())?)?;
    // one more, to tell that there are more
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// The text of a configuration.
///
/// # Errors
/// As [`read`], and when it is not text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, MOST_TEXT)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not text"))
}

/// The text of a configuration, if there is one.
///
/// # Errors
/// When there is one that cannot be read.
#[cfg(feature = "onnx")]
pub(crate) fn read_text_if_any(path: &Path) -> crate::Result<Option<String>> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(crate::Error::new(crate::ErrorKind::Io, format!("{} cannot be read: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read(&path, 10).unwrap(), [7; 10]);
        assert_eq!(read(&path, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(folder.path(), 9).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(&folder.path().join("b"), 9).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    #[cfg(unix)]
    fn devices_and_pipes_are_not_waited_for() {
        assert!(read(Path::new("/dev/zero"), 9).unwrap_err().to_string().contains("no regular file"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        if std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|s| s.success()) {
            assert!(read(&path, 9).unwrap_err().to_string().contains("no regular file"));
        }
    }
}
