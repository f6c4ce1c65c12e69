//! The container: `ar(5)` as `deb(5)` restricts it, and the compressions that dpkg knows.

use std::io::{self, Read};

/// What every archive begins with.
const MAGIC: &[u8] = b"!<arch>\n";
/// Header of a member: name 16, time 12, owner 6, group 6, mode 8, size 10, end mark 2.
const HEADER: usize = 60;

/// The three members of a package, names included because they say how each is compressed.
#[derive(Debug)]
pub(super) struct Members<'a> {
    pub(super) control: (&'a str, &'a [u8]),
    pub(super) data: (&'a str, &'a [u8]),
}

/// Takes a package apart. `deb(5)`: `debian-binary` (`2.` and anything) first, then the control archive, then the data
/// archive; members whose name begins with `_` may stand between and are skipped; what follows is ignored by dpkg but
/// an error here, since nothing that Debian publishes has it.
pub(super) fn members(file: &[u8]) -> Result<Members<'_>, String> {
    let mut rest = file.strip_prefix(MAGIC).ok_or("is not an ar archive")?;
    let (name, version) = member(&mut rest)?;
    if name != "debian-binary" || !version.starts_with(b"2.") {
        return Err("is not a Debian package of format 2".into());
    }
    let control = named(&mut rest, "control.tar")?;
    let data = named(&mut rest, "data.tar")?;
    if !rest.is_empty() {
        return Err("has more after its data archive".into());
    }
    Ok(Members { control, data })
}

fn named<'a>(rest: &mut &'a [u8], wanted: &str) -> Result<(&'a str, &'a [u8]), String> {
    loop {
        if rest.is_empty() {
            return Err(format!("has no {wanted}"));
        }
        let (name, bytes) = member(rest)?;
        if name.starts_with(wanted) {
            return Ok((name, bytes));
        }
        if !name.starts_with('_') {
            return Err(format!("has {name:?} where {wanted} is due"));
        }
    }
}

fn member<'a>(rest: &mut &'a [u8]) -> Result<(&'a str, &'a [u8]), String> {
    if rest.len() < HEADER {
        return Err("ends inside a member header".into());
    }
    let (header, body) = rest.split_at(HEADER);
    if &header[58..60] != b"`\n" {
        return Err("has a damaged member header".into());
    }
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim_end).ok();
    // dpkg writes plain names, GNU ar ends them with a slash.
    let name = text(0..16).ok_or("has a member with an odd name")?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let size: usize =
        text(48..58).and_then(|size| size.parse().ok()).ok_or_else(|| format!("has no size for {name:?}"))?;
    if size > body.len() {
        return Err(format!("ends inside {name:?}"));
    }
    let (bytes, after) = body.split_at(size);
    // Members begin at even offsets.
    *rest = if size % 2 == 1 { after.get(1..).unwrap_or_default() } else { after };
    Ok((name, bytes))
}

/// A reader of the decompressed member, told by its name. Never gives more than `limit` bytes: past that it fails.
pub(super) fn decompressor<'a>(name: &str, bytes: &'a [u8], limit: u64) -> io::Result<Box<dyn Read + 'a>> {
    let reader: Box<dyn Read + 'a> = match name.rsplit_once(".tar").map(|(_, suffix)| suffix) {
        Some("") => Box::new(bytes),
        // Multi-stream files do not occur in packages, but xz itself allows them.
        Some(".xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(bytes)),
        Some(".zst") => Box::new(zstd::stream::read::Decoder::new(bytes)?),
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "compression is not one of xz, zst, gz")),
    };
    Ok(Box::new(Limited { reader, left: limit }))
}

/// Fails instead of giving more than so many bytes; `Read::take` would end quietly.
struct Limited<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "unpacks to more than any package may have")
        })?;
        Ok(n)
    }
}
