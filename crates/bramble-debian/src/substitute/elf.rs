//! As much of ELF as the library cache and depmod need: 64-bit little-endian files, which both architectures have.
//! Offsets are those of the ELF-64 object file format (and `elf.h`). Everything is checked: a damaged file has no
//! sections rather than making the build fail somewhere deep.

/// `ET_DYN`: a shared object.
const TYPE_SHARED: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// A file that begins like an ELF file of 64 bits, little-endian.
#[derive(Clone, Copy)]
pub(crate) struct Elf<'a>(&'a [u8]);

/// A section and its name.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        // Class 2 is 64 bits, data 1 is little-endian.
        (bytes.len() >= 64 && bytes.starts_with(b"\x7fELF\x02\x01")).then_some(Elf(bytes))
    }

    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    fn range(self, offset: u64, size: u64) -> Option<&'a [u8]> {
        self.0.get(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(size)?).ok()?)
    }

    /// Every section but the null one.
    pub(crate) fn sections(self) -> Option<Vec<Section<'a>>> {
        let (table, count, names) = (self.u64(40)? as usize, self.u16(60)? as usize, self.u16(62)? as usize);
        let header = |index: usize| {
            let at = table.checked_add(index * 64)?;
            // A section without bytes in the file (`.bss`, type 8).
            let size = if self.u32(at + 4)? == 8 { 0 } else { self.u64(at + 32)? };
            Some((self.u32(at)? as usize, self.range(self.u64(at + 24)?, size)?))
        };
        let (_, strings) = header(names)?;
        (1..count)
            .map(|index| {
                let (name, bytes) = header(index)?;
                Some(Section { name: text_at(strings, name)?, bytes })
            })
            .collect()
    }

    /// `DT_SONAME` of a shared object: `Some(None)` when it has none, `None` when this is no shared object.
    pub(crate) fn soname(self) -> Option<Option<&'a [u8]>> {
        if self.u16(16)? != TYPE_SHARED {
            return None;
        }
        let (table, count) = (self.u64(32)? as usize, self.u16(56)? as usize);
        let mut loads = Vec::new();
        let mut dynamic = None;
        for index in 0..count {
            let at = table.checked_add(index * 56)?;
            let (kind, offset, address, size) =
                (self.u32(at)?, self.u64(at + 8)?, self.u64(at + 16)?, self.u64(at + 32)?);
            match kind {
                PT_LOAD => loads.push((address, offset, size)),
                PT_DYNAMIC => dynamic = Some(self.range(offset, size)?),
                _ => {}
            }
        }
        let (mut strings, mut soname) = (None, None);
        for entry in dynamic?.chunks_exact(16) {
            let tag = u64::from_le_bytes(entry[..8].try_into().ok()?);
            let value = u64::from_le_bytes(entry[8..].try_into().ok()?);
            match tag {
                0 => break,
                DT_STRTAB => strings = Some(value),
                DT_SONAME => soname = Some(value),
                _ => {}
            }
        }
        let Some(soname) = soname else { return Some(None) };
        let address = strings?.checked_add(soname)?;
        let (start, offset, size) = *loads
            .iter()
            .find(|(start, _, size)| (*start..start.saturating_add(*size)).contains(&address))?;
        let rest = self.range(offset.checked_add(address - start)?, size - (address - start))?;
        Some(text_at(rest, 0))
    }
}

/// The bytes up to the next NUL.
pub(crate) fn text_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    Some(&rest[..rest.iter().position(|b| *b == 0)?])
}
