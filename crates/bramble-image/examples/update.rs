//! What updates cost, beside other ways to send them: for bench/update.py.
//!
//! usage: update WORK BUILD BUILD [BUILD...]
//!
//! The builds are of one cluster and architecture, oldest first, each placed by the one before (examples/release.rs with
//! key of zeros). Publishes them below WORK and prints a line of JSON for each but the first. The other ways get the same
//! compressor at the same level:
//!
//! - `index`: as RAUC's block-hash-index does it: 32 bytes for each 4 KiB block, and the blocks that the running release
//!   does not have, each run of them in pieces of at most 128 KiB.
//! - `chunks`: as casync and desync do it: content-defined chunks of 16, 64 and 256 KiB (least, mean, most), those that the
//!   running release does not have, and an index of 40 bytes a chunk.

#![expect(clippy::print_stdout, reason = "an example says what it measured")]

use bramble_image::publish::{Before, PublishInput, Settings, publish};
use bramble_image::release;
use bramble_secrets::Secret;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [work, builds @ ..] = &arguments[..] else {
        return Err("usage: update WORK BUILD BUILD [BUILD...]".into());
    };
    let key = Secret::new([0; 32]);
    for (number, directory) in builds.iter().enumerate() {
        let build = release::open(directory)?;
        let before: Vec<Before> = builds[..number]
            .iter()
            .rev()
            .flat_map(|earlier| Before::find(earlier, build.manifest.arch))
            .flatten()
            .collect();
        let started = Instant::now();
        let input = PublishInput {
            release: &build,
            before: &before,
            signing_key: &key,
            statement: None,
            out: &work.join("public"),
            now: build.manifest.time,
            valid: None,
            settings: Settings { level: LEVEL, ..Settings::default() },
            keep: 4,
        };
        let (report, _) = publish(&input)?;
        let seconds = started.elapsed().as_secs_f64();
        let Some(last) = number.checked_sub(1).map(|last| &builds[last]) else { continue };
        let (old, new) = (images(last)?, images(directory)?);
        let line = serde_json::json!({
            "build": directory, "seconds": seconds, "report": report,
            "index": index(&old, &new)?, "chunks": chunks(&old, &new)?,
        });
        println!("{line}");
    }
    Ok(())
}

/// Root without its hash tree, and kernel image or boot partition.
fn images(directory: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let build = release::open(directory)?;
    let read = |path: PathBuf, size: u64| -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = std::fs::read(path)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    };
    let mut images = vec![read(build.root(), build.manifest.root_size)?];
    if let Some(uki) = &build.manifest.uki {
        images.push(read(build.uki(), uki.size)?);
    }
    if let Some(boot) = &build.manifest.boot {
        images.push(read(build.boot(), boot.size)?);
    }
    Ok(images)
}

fn index(old: &[Vec<u8>], new: &[Vec<u8>]) -> Result<u64, Box<dyn Error>> {
    let blocks =
        |images: &[Vec<u8>]| images.iter().map(|image| image.len().div_ceil(4096) as u64).sum::<u64>();
    let known: HashSet<[u8; 32]> =
        old.iter().flat_map(|image| image.chunks(4096)).map(|block| Sha256::digest(block).into()).collect();
    let mut bytes = 32 * blocks(new);
    let mut run = Vec::new();
    let mut seen = known;
    for block in new.iter().flat_map(|image| image.chunks(4096)) {
        if seen.insert(Sha256::digest(block).into()) {
            run.extend_from_slice(block);
        }
        if run.len() >= 128 << 10 {
            bytes += zstd::bulk::compress(&std::mem::take(&mut run), LEVEL)?.len() as u64;
        }
    }
    Ok(bytes + zstd::bulk::compress(&run, LEVEL)?.len() as u64)
}

fn chunks(old: &[Vec<u8>], new: &[Vec<u8>]) -> Result<u64, Box<dyn Error>> {
    let mut seen: HashSet<[u8; 32]> =
        old.iter().flat_map(|image| cut(image)).map(|chunk| Sha256::digest(chunk).into()).collect();
    let mut bytes = 0;
    for chunk in new.iter().flat_map(|image| cut(image)) {
        bytes += 40;
        if seen.insert(Sha256::digest(chunk).into()) {
            bytes += zstd::bulk::compress(chunk, LEVEL)?.len() as u64;
        }
    }
    Ok(bytes)
}

/// Chunks that end where a gear hash over the last 64 bytes has 16 zero bits (a mean of 64 KiB beyond the least length).
fn cut(image: &[u8]) -> Vec<&[u8]> {
    const LEAST: usize = 16 << 10;
    const MOST: usize = 256 << 10;
    let gear: Vec<u64> = (0..256u64)
        .map(|n| {
            let digest = Sha256::digest(n.to_le_bytes());
            digest[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
        })
        .collect();
    let mut chunks = Vec::new();
    let mut rest = image;
    while !rest.is_empty() {
        let most = rest.len().min(MOST);
        let mut end = most;
        let mut hash = 0u64;
        for (at, byte) in rest[..most].iter().enumerate().skip(LEAST.saturating_sub(64)) {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            if at >= LEAST && hash >> 48 == 0 {
                end = at + 1;
                break;
            }
        }
        let (chunk, later) = rest.split_at(end);
        chunks.push(chunk);
        rest = later;
    }
    chunks
}
