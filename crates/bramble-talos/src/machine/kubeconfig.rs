//! A kubeconfig out of what a machine sends: a tar with one file, compressed, whose padding and end are missing
//! because the machine never closes it. So one entry is read and no second one looked for.

use bramble_secrets::{Secret, SecretText};
use std::io::{Error, ErrorKind, Read};

/// A header of tar.
const HEADER: usize = 512;
/// Where the size stands in it, in octal (POSIX ustar).
const SIZE: std::ops::Range<usize> = 124..136;

/// The text of the first file.
pub(super) fn unpack(packed: &[u8], limit: u64) -> Result<SecretText, Error> {
    let odd = |what: &str| Error::new(ErrorKind::InvalidData, format!("the kubeconfig {what}"));
    let mut tar = flate2::read::GzDecoder::new(packed).take(limit);
    let mut header = [0; HEADER];
    tar.read_exact(&mut header)?;
    let size = std::str::from_utf8(&header[SIZE]).ok().map(|text| text.trim_matches(['\0', ' ']));
    let size = size.and_then(|text| u64::from_str_radix(text, 8).ok()).ok_or_else(|| odd("has no size"))?;
    let mut text = String::new();
    tar.take(size).read_to_string(&mut text)?;
    let text = Secret::new(text);
    if text.expose().len() as u64 != size { Err(odd("is cut short")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(size: &str, text: &str) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[..10].copy_from_slice(b"kubeconfig");
        header[SIZE][..size.len()].copy_from_slice(size.as_bytes());
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(&header).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
        zip.finish().unwrap()
    }

    #[test]
    fn the_first_file_is_read_though_nothing_ends_it() {
        let text = |size, text| unpack(&packed(size, text), 4096).map(|t| t.expose().clone());
        assert_eq!(text("00000000005\0", "kind:").unwrap(), "kind:");
        assert_eq!(text("00000000004\0", "kind:").unwrap(), "kind");
        assert!(text("00000000006\0", "kind:").unwrap_err().to_string().contains("short"));
        assert!(text("no number\0", "kind:").is_err());
        assert!(unpack(b"no gzip", 4096).is_err());
        assert!(unpack(&packed("7777777\0", "kind:"), 600).is_err());
    }
}
