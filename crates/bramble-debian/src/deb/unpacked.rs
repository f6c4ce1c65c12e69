//! The uncompressed form of a package in the cache.
//!
//! One file a package, `unpacked/SHA256.tar`: the data archive, then the control archive, then 32 bytes that say how
//! long each is. It is written under another name, synced by nobody (a lost one is made again) and renamed, so that
//! a file of the right name is complete unless the disk lost it; the trailer catches that.

use super::{DebError, MAX_CONTROL, MAX_DATA, ar};
use crate::tree::Content;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// First half of the trailer; the number counts formats.
const MAGIC: &[u8; 16] = b"bramble-unpack-1";
const TRAILER: usize = 32;

/// Both archives of a package, uncompressed and mapped.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The control archive.
    pub control: Content,
    /// The data archive.
    pub data: Content,
}

impl Unpacked {
    /// Maps the unpacked form, making it first where it is missing or damaged. The flag says that it was there.
    ///
    /// # Errors
    /// See [`DebError`].
    pub fn open_or_make(deb: &Path, sha256: &str, size: u64, cache: &Path) -> Result<(Self, bool), DebError> {
        let dir = cache.join("unpacked");
        let file = dir.join(format!("{sha256}.tar"));
        if let Some(unpacked) = open(&file)? {
            return Ok((unpacked, true));
        }
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        make(deb, sha256, size, &file)?;
        match open(&file)? {
            Some(unpacked) => Ok((unpacked, false)),
            // It was just written in full: whatever shortened it does not obey the cache's rule.
            None => Err(DebError::Io {
                act: "read back",
                path: file,
                source: io::Error::from(io::ErrorKind::UnexpectedEof),
            }),
        }
    }
}

fn io_error<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DebError + 'a {
    move |source| DebError::Io { act, path: path.to_path_buf(), source }
}

/// `None` when there is no such file or its lengths do not fit.
fn open(path: &Path) -> Result<Option<Unpacked>, DebError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("read", path)(e)),
    };
    let whole = Content::map(&file).map_err(io_error("map", path))?;
    Ok(split(&whole))
}

fn split(whole: &Content) -> Option<Unpacked> {
    let body = whole.len().checked_sub(TRAILER)?;
    let trailer = whole.slice(body..whole.len())?;
    let number = |at: usize| Some(u64::from_le_bytes(trailer.get(at..at + 8)?.try_into().ok()?) as usize);
    let (data, control) = (number(16)?, number(24)?);
    if !trailer.starts_with(MAGIC) || data.checked_add(control)? != body {
        return None;
    }
    Some(Unpacked { data: whole.slice(0..data)?, control: whole.slice(data..body)? })
}

fn make(deb: &Path, sha256: &str, size: u64, to: &Path) -> Result<(), DebError> {
    let file = File::open(deb).map_err(io_error("read", deb))?;
    let bytes = Content::map(&file).map_err(io_error("map", deb))?;
    if bytes.len() as u64 != size {
        return Err(DebError::NotTheLocked { path: deb.into(), what: "size" });
    }
    if !hex::encode(Sha256::digest(&bytes)).eq_ignore_ascii_case(sha256) {
        return Err(DebError::NotTheLocked { path: deb.into(), what: "SHA-256" });
    }
    let members = ar::members(&bytes).map_err(|reason| DebError::Container { path: deb.into(), reason })?;

    let part = part_name(to);
    let done =
        write(deb, &members, &part).and_then(|()| fs::rename(&part, to).map_err(io_error("rename", &part)));
    if done.is_err() {
        // What is left over is only garbage in the cache; the error that led here is the one to tell.
        let _ = fs::remove_file(&part);
    }
    done
}

/// A name that no other thread or process writes to.
fn part_name(to: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    to.with_extension(format!("part-{}-{number}", std::process::id()))
}

fn write(deb: &Path, members: &ar::Members<'_>, part: &Path) -> Result<(), DebError> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(part).map_err(io_error("write", part))?);
    let mut lengths = [0; 2];
    for (length, ((name, bytes), limit)) in
        lengths.iter_mut().zip([(members.data, MAX_DATA), (members.control, MAX_CONTROL)])
    {
        let failed = |source| DebError::Decompress { path: deb.into(), member: name.into(), source };
        let mut reader = ar::decompressor(name, bytes, limit).map_err(failed)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            // Not io::copy: a full disk and a damaged package are different errors.
            let n = reader.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n]).map_err(io_error("write", part))?;
            *length += n as u64;
        }
    }
    let [data, control] = lengths.map(u64::to_le_bytes);
    let trailer = [&MAGIC[..], &data, &control].concat();
    out.write_all(&trailer).and_then(|()| out.flush()).map_err(io_error("write", part))
}
