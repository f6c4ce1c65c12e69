//! As much of a PE file as systemd-boot looks at: machine and sections.
//!
//! Format: Microsoft "PE Format", sections 3 (headers) and 4 (section table). Names of sections: UAPI.5, "Unified Kernel
//! Image".

use super::Arch;
use crate::firmware::ReadAt;
use crate::firmware::volume::Volume;

/// Where the PE header may begin: systemd-boot reads the DOS header's pointer; linkers put it within the first page.
const HEAD: usize = 4096;
/// Our bound on sections: a UKI has about ten.
const SECTIONS_MAX: usize = 96;
const SECTION_BYTES: usize = 40;
/// Our bound on a text section.
const TEXT_MAX: usize = 64 << 10;
/// "PE32+".
const OPTIONAL_MAGIC: u16 = 0x20b;

/// A file whose headers are sound.
pub(super) struct Image {
    sections: Vec<(Vec<u8>, u32, u32)>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Image {
    /// Reads the headers; `None` for a file that is no program for this architecture (`verify_pe` in src/boot/pe.c).
    pub(super) fn read<D: ReadAt + ?Sized>(volume: &mut Volume<D>, path: &str, arch: Arch) -> Option<Self> {
        let head = volume.head(path, HEAD + SECTIONS_MAX * SECTION_BYTES).ok()?;
        if !head.starts_with(b"MZ") {
            return None;
        }
        let at = u32_at(&head, 0x3c)? as usize;
        if head.get(at..at.checked_add(4)?)? != b"PE\0\0" || u16_at(&head, at + 4)? != arch.machine() {
            return None;
        }
        let count = usize::from(u16_at(&head, at + 6)?);
        let optional = usize::from(u16_at(&head, at + 20)?);
        if count == 0 || count > SECTIONS_MAX || u16_at(&head, at + 24)? != OPTIONAL_MAGIC {
            return None;
        }
        let sections = (0..count).map(|index| {
            let at = at + 24 + optional + index * SECTION_BYTES;
            let name = head.get(at..at + 8)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(8);
            // The length in memory is the true one; that in the file is rounded up.
            let length = u32_at(&head, at + 8)?.min(u32_at(&head, at + 16)?);
            Some((name[..end].to_vec(), u32_at(&head, at + 20)?, length))
        });
        Some(Self { sections: sections.collect::<Option<_>>()? })
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.sections.iter().any(|(section, ..)| section == name)
    }

    /// A section that is text.
    pub(super) fn text<D: ReadAt + ?Sized>(
        &self,
        volume: &mut Volume<D>,
        path: &str,
        name: &[u8],
    ) -> Option<String> {
        let (_, offset, length) = self.sections.iter().find(|(section, ..)| section == name)?;
        let length = usize::try_from(*length).ok().filter(|length| *length <= TEXT_MAX)?;
        let bytes =
            volume.part(path, u64::from(*offset), length).ok().filter(|bytes| bytes.len() == length)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}
