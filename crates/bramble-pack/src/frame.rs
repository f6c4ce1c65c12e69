//! Frames: what is fetched, checked and decompressed at once.

use crate::head::{FRAME_ENTRY, Stream};
use crate::{BLOCK, Damaged, MAX_FRAME_BLOCKS, MAX_FRAME_BYTES, impossible};
use bramble_api::release::Digest;
use ruzstd::decoding::FrameDecoder;

/// One frame of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First byte, counted from the end of the head.
    pub offset: u64,
    /// Compressed bytes.
    pub size: u32,
    /// Its first block in the stream.
    pub first: u32,
    /// Its blocks.
    pub blocks: u32,
    /// First 16 bytes of the SHA-256 of the compressed bytes.
    pub hash: [u8; 16],
}

/// The table of a stream: 24 bytes a frame, so 10 KB for an image of 400 MB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames(Vec<Frame>);

impl Frames {
    /// The table of a stream, as it was fetched.
    ///
    /// # Errors
    /// Another length or hash than the head says; or the frames are not the stream.
    pub fn open(stream: &Stream, bytes: &[u8]) -> Result<Frames, Damaged> {
        stream.table.check("table of frames", bytes)?;
        Frames::parse(stream, bytes)
    }

    /// As [`Frames::open`], the hash believed.
    ///
    /// # Errors
    /// The frames are not the stream.
    pub fn parse(stream: &Stream, bytes: &[u8]) -> Result<Frames, Damaged> {
        let wrong = |why| impossible("table of frames", why);
        if bytes.len() as u64 != stream.table.size || !stream.table.size.is_multiple_of(FRAME_ENTRY) {
            return Err(Damaged::Length("table of frames"));
        }
        let (mut offset, mut first) = (stream.offset, 0u32);
        let mut frames = Vec::with_capacity(bytes.len() / FRAME_ENTRY as usize);
        for entry in bytes.chunks_exact(FRAME_ENTRY as usize) {
            let word =
                |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let (size, blocks) = (word(0), word(4));
            let mut hash = [0; 16];
            hash.copy_from_slice(&entry[8..24]);
            if blocks == 0 || blocks > MAX_FRAME_BLOCKS || size == 0 || size as usize > MAX_FRAME_BYTES {
                return Err(wrong("a frame's size"));
            }
            frames.push(Frame { offset, size, first, blocks, hash });
            offset = offset.checked_add(size.into()).ok_or_else(|| wrong("an offset"))?;
            first = first.checked_add(blocks).ok_or_else(|| wrong("a number of blocks"))?;
        }
        if offset.checked_sub(stream.offset) != Some(stream.size) || first != stream.blocks {
            return Err(wrong("frames that are not the stream"));
        }
        Ok(Frames(frames))
    }

    /// In order.
    pub fn all(&self) -> &[Frame] {
        &self.0
    }

    /// The frame that holds a block of the stream.
    pub fn holding(&self, block: u32) -> Option<&Frame> {
        let after = self.0.partition_point(|frame| frame.first <= block);
        self.0.get(after.checked_sub(1)?).filter(|frame| block - frame.first < frame.blocks)
    }
}

impl Frame {
    /// Decompresses the frame into `out`, which is then exactly its blocks. Memory: the content once more.
    ///
    /// # Errors
    /// They are not its bytes, or no frame of this length. `out` then holds nothing of use.
    pub fn decode(&self, compressed: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        if compressed.len() != self.size as usize {
            return Err(Damaged::Length("frame"));
        }
        if Digest::of(compressed).0[..16] != self.hash {
            return Err(Damaged::Hash("frame"));
        }
        self.decompress(compressed, out)
    }

    /// As [`Frame::decode`], the hash believed.
    ///
    /// # Errors
    /// No frame of this length.
    pub fn decompress(&self, compressed: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        decompress(compressed, self.blocks as usize * BLOCK, out)
    }
}

/// Decompresses one frame with exactly `size` bytes of content.
fn decompress(compressed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), Damaged> {
    out.clear();
    // The decoder makes its window as large as the frame says; only one that says the truth is let near it.
    if content_size(compressed) != Some(size as u64) {
        return Err(Damaged::Frame);
    }
    out.resize(size, 0);
    let mut decoder = FrameDecoder::new();
    match decoder.decode_all(compressed, out) {
        Ok(written) if written == size => Ok(()),
        _ => Err(Damaged::Frame),
    }
}

/// The content size that a Zstandard frame of a single segment states, without dictionary (RFC 8878, 3.1.1.1).
fn content_size(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_at_checked(4)?;
    if magic != [0x28, 0xb5, 0x2f, 0xfd] {
        return None;
    }
    let (&descriptor, rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment || descriptor & 0b11 != 0 {
        return None;
    }
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let size = rest.get(..length)?.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    // Two bytes count from 256 on.
    Some(if length == 2 { size + 256 } else { size })
}
