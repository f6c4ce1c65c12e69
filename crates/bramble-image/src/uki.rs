//! Unified kernel images: kernel, initramfs and command line as sections behind systemd's stub.
//!
//! Formats: PE/COFF (Microsoft's specification, revision 11), UAPI.5 Unified Kernel Image, and what `ukify` of systemd
//! 257 does: sections in its order, `.linux` last and with the kernel's own `SizeOfImage` as its size in memory (it
//! is started in place), `.sbat` lines of stub and kernel merged into the stub's section.

/// Where the fields of the headers lie, from the start of what is named (PE/COFF 2.3, 3.3, 3.4, 4).
mod field {
    /// File offset of the PE signature, in the DOS header.
    pub const LFANEW: usize = 0x3c;
    /// From the PE signature.
    pub const MACHINE: usize = 4;
    pub const SECTION_COUNT: usize = 6;
    pub const OPTIONAL_SIZE: usize = 20;
    pub const OPTIONAL: usize = 24;
    /// From the optional header.
    pub const INITIALIZED_DATA: usize = 8;
    pub const SECTION_ALIGNMENT: usize = 32;
    pub const FILE_ALIGNMENT: usize = 36;
    pub const IMAGE_SIZE: usize = 56;
    pub const HEADERS_SIZE: usize = 60;
    pub const CHECKSUM: usize = 64;
    /// From a section header of 40 bytes.
    pub const VIRTUAL_SIZE: usize = 8;
    pub const ADDRESS: usize = 12;
    pub const RAW_SIZE: usize = 16;
    pub const RAW_OFFSET: usize = 20;
    pub const FLAGS: usize = 36;
}

const SECTION_HEADER: usize = 40;
/// PE32+, the only form that 64-bit firmware starts.
const MAGIC_64: u16 = 0x20b;
const CODE: u32 = 0x20;
const INITIALIZED_DATA: u32 = 0x40;
const READABLE: u32 = 0x4000_0000;

/// Says who may revoke unified kernel images as such (UAPI.5, `.sbat`).
const SBAT_UKI: &str = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/";
const SBAT_HEAD: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md";

/// A stub or kernel that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// A file is not a PE image of 64 bits, or its headers contradict each other.
    #[error("the {file} is not a usable PE image: {what}")]
    Malformed {
        /// `stub` or `kernel`.
        file: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// Stub and kernel are for different machines (values of the PE machine field).
    #[error("stub and kernel are for different machines ({stub:#06x}, {kernel:#06x})")]
    Machine {
        /// The stub's.
        stub: u16,
        /// The kernel's.
        kernel: u16,
    },
    /// The stub's headers have no room for the sections.
    #[error("the stub's headers have no room for section {0}")]
    NoRoom(&'static str),
    /// More than a PE image can hold.
    #[error("section {0} makes the image larger than 4 GiB")]
    TooLarge(&'static str),
}

/// What goes into a unified kernel image.
#[derive(Clone, Copy, Debug)]
pub struct Uki<'a> {
    /// systemd's stub for the architecture, `linuxx64.efi.stub` or `linuxaa64.efi.stub`.
    pub stub: &'a [u8],
    /// The kernel, a PE image itself (EFI stub kernel).
    pub kernel: &'a [u8],
    /// The initramfs as the kernel takes it.
    pub initramfs: &'a [u8],
    /// Kernel command line.
    pub cmdline: &'a str,
    /// The text of `os-release`: the boot loader shows its name.
    pub os_release: &'a str,
    /// Kernel release, as `uname -r` says it.
    pub uname: &'a str,
}

impl Uki<'_> {
    /// Assembles the image.
    pub fn assemble(&self) -> Result<Vec<u8>, UkiError> {
        let kernel = Headers::read(self.kernel, "kernel")?;
        let stub = Headers::read(self.stub, "stub")?;
        if stub.machine != kernel.machine {
            return Err(UkiError::Machine { stub: stub.machine, kernel: kernel.machine });
        }
        let size = self.stub.len() + self.kernel.len() + self.initramfs.len() + (64 << 10);
        let mut image = Image { bytes: Vec::with_capacity(size), headers: stub };
        image.bytes.extend_from_slice(self.stub);
        image.append(".osrel", self.os_release.as_bytes(), None)?;
        image.append(".cmdline", self.cmdline.as_bytes(), None)?;
        image.append(".uname", self.uname.as_bytes(), None)?;
        image.append(".initrd", self.initramfs, None)?;
        image.append(".linux", self.kernel, Some(kernel.image_size))?;
        let sbat = sbat(section(self.stub, ".sbat"), section(self.kernel, ".sbat"));
        image.replace(".sbat", sbat.as_bytes())?;
        Ok(image.finish())
    }
}

/// The parts of a PE image's headers that matter here.
struct Headers {
    /// File offset of the PE signature.
    pe: usize,
    machine: u16,
    section_alignment: u32,
    file_alignment: u32,
    image_size: u32,
    headers_size: usize,
    /// File offset of the first section header.
    table: usize,
    sections: usize,
}

impl Headers {
    fn read(bytes: &[u8], file: &'static str) -> Result<Headers, UkiError> {
        let bad = |what| UkiError::Malformed { file, what };
        if bytes.get(..2) != Some(b"MZ") {
            return Err(bad("no MZ at its start"));
        }
        let cut = || bad("its headers are cut off");
        let pe = u32_at(bytes, field::LFANEW).ok_or_else(cut)? as usize;
        let word = |at: usize| u32_at(bytes, pe.checked_add(at)?);
        let half = |at: usize| u16_at(bytes, pe.checked_add(at)?);
        if word(0) != Some(u32::from_le_bytes(*b"PE\0\0")) {
            return Err(bad("no PE header"));
        }
        let optional = field::OPTIONAL;
        if half(optional) != Some(MAGIC_64) {
            return Err(bad("not PE32+"));
        }
        let table = pe + optional + usize::from(half(field::OPTIONAL_SIZE).ok_or_else(cut)?);
        let sections = usize::from(half(field::SECTION_COUNT).ok_or_else(cut)?);
        let headers = Headers {
            pe,
            machine: half(field::MACHINE).ok_or_else(cut)?,
            section_alignment: word(optional + field::SECTION_ALIGNMENT).ok_or_else(cut)?,
            file_alignment: word(optional + field::FILE_ALIGNMENT).ok_or_else(cut)?,
            image_size: word(optional + field::IMAGE_SIZE).ok_or_else(cut)?,
            headers_size: word(optional + field::HEADERS_SIZE).ok_or_else(cut)? as usize,
            table,
            sections,
        };
        let aligned = headers.section_alignment.is_power_of_two() && headers.file_alignment.is_power_of_two();
        if !aligned {
            return Err(bad("its alignments are no powers of two"));
        }
        if sections == 0 || table + sections * SECTION_HEADER > bytes.len().min(headers.headers_size) {
            return Err(bad("its section headers are cut off"));
        }
        Ok(headers)
    }

    /// File offset of a section's header.
    fn section(&self, index: usize) -> usize {
        self.table + index * SECTION_HEADER
    }
}

/// The contents of a section; `None` when there is no such section, or it lies outside the file.
pub fn section<'a>(image: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let headers = Headers::read(image, "image").ok()?;
    let at = (0..headers.sections).map(|i| headers.section(i)).find(|at| named(image, *at, name))?;
    let field = |offset| u32_at(image, at + offset).map(|v| v as usize);
    let (offset, raw, size) =
        (field(field::RAW_OFFSET)?, field(field::RAW_SIZE)?, field(field::VIRTUAL_SIZE)?);
    image.get(offset..offset.checked_add(raw.min(size))?)
}

fn named(image: &[u8], at: usize, name: &str) -> bool {
    let mut padded = [0; 8];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    image.get(at..at + 8) == Some(&padded)
}

struct Image {
    bytes: Vec<u8>,
    headers: Headers,
}

impl Image {
    /// Adds a section behind the last one. `memory` is its size once loaded, if that is not its length.
    fn append(&mut self, name: &'static str, data: &[u8], memory: Option<u32>) -> Result<(), UkiError> {
        let headers = &self.headers;
        let at = headers.section(headers.sections);
        // What follows the section headers in the file is the first section: the room between is all there is.
        if at + SECTION_HEADER > headers.headers_size {
            return Err(UkiError::NoRoom(name));
        }
        let large = || UkiError::TooLarge(name);
        let align = |value: usize, to: u32| -> Option<u32> {
            u32::try_from(value).ok()?.checked_next_multiple_of(to)
        };
        let last = headers.section(headers.sections - 1);
        let last_field = |offset| u32_at(&self.bytes, last + offset).unwrap_or_default() as usize;
        let end = last_field(field::ADDRESS) + last_field(field::VIRTUAL_SIZE);
        let address = align(end, headers.section_alignment).ok_or_else(large)?;
        let offset = align(self.bytes.len(), headers.file_alignment).ok_or_else(large)?;
        let raw = align(data.len(), headers.file_alignment).ok_or_else(large)?;
        let size = memory.unwrap_or(data.len() as u32).max(data.len() as u32);
        address.checked_add(size).ok_or_else(large)?;
        let kind = if name == ".linux" { CODE } else { INITIALIZED_DATA };

        let mut header = [0; SECTION_HEADER];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [
            (field::VIRTUAL_SIZE, size),
            (field::ADDRESS, address),
            (field::RAW_SIZE, raw),
            (field::RAW_OFFSET, offset),
            (field::FLAGS, kind | READABLE),
        ] {
            header[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes[at..at + SECTION_HEADER].copy_from_slice(&header);
        self.bytes.resize(offset as usize, 0);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(offset as usize + raw as usize, 0);
        self.headers.sections += 1;
        let counted = self.headers.pe + field::OPTIONAL + field::INITIALIZED_DATA;
        let initialized = u32_at(&self.bytes, counted).unwrap_or_default().saturating_add(size);
        self.put(counted, initialized);
        Ok(())
    }

    /// Puts other data into a section of the stub, which must have the room.
    fn replace(&mut self, name: &'static str, data: &[u8]) -> Result<(), UkiError> {
        let headers = &self.headers;
        let found =
            (0..headers.sections).map(|i| headers.section(i)).find(|at| named(&self.bytes, *at, name));
        let at = found.ok_or(UkiError::Malformed { file: "stub", what: "it has no .sbat section" })?;
        let field = |offset| u32_at(&self.bytes, at + offset).unwrap_or_default() as usize;
        let (offset, room) = (field(field::RAW_OFFSET), field(field::RAW_SIZE));
        let target = self.bytes.get_mut(offset..offset + room).ok_or(UkiError::NoRoom(name))?;
        if data.len() > room {
            return Err(UkiError::NoRoom(name));
        }
        target.fill(0);
        target[..data.len()].copy_from_slice(data);
        self.put(at + field::VIRTUAL_SIZE, data.len() as u32);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let headers = &self.headers;
        let last = headers.section(headers.sections - 1);
        let last_field = |offset| u32_at(&self.bytes, last + offset).unwrap_or_default();
        let end = last_field(field::ADDRESS).saturating_add(last_field(field::VIRTUAL_SIZE));
        let image_size = end.checked_next_multiple_of(headers.section_alignment).unwrap_or(end);
        let (pe, optional) = (headers.pe, headers.pe + field::OPTIONAL);
        let count = (headers.sections as u16).to_le_bytes();
        self.bytes[pe + field::SECTION_COUNT..pe + field::SECTION_COUNT + 2].copy_from_slice(&count);
        self.put(optional + field::IMAGE_SIZE, image_size);
        // Nobody checks it for UEFI programs; a wrong one would be worse than none.
        self.put(optional + field::CHECKSUM, 0);
        self.bytes
    }

    fn put(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The lines of stub and kernel behind one head line, closed with a zero.
fn sbat(stub: Option<&[u8]>, kernel: Option<&[u8]>) -> String {
    let mut out = format!("{SBAT_HEAD}\n");
    let lines = [stub, kernel].into_iter().flatten().filter_map(|bytes| std::str::from_utf8(bytes).ok());
    for text in lines {
        let text = text.trim_end_matches('\0');
        for line in text.lines().filter(|line| !line.starts_with("sbat,") && !line.is_empty()) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str(SBAT_UKI);
    out.push_str("\n\0");
    out
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use object::read::pe::PeFile64;
    use object::{Object, ObjectSection};

    /// A PE32+ file with these sections, of the least that is valid. Headers take `headers` bytes.
    pub(crate) fn pe(machine: u16, headers: usize, sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; headers];
        out[..2].copy_from_slice(b"MZ");
        out[field::LFANEW] = 0x80;
        let pe = 0x80;
        out[pe..pe + 4].copy_from_slice(b"PE\0\0");
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(pe + field::MACHINE, &machine.to_le_bytes());
        put(pe + field::SECTION_COUNT, &(sections.len() as u16).to_le_bytes());
        put(pe + field::OPTIONAL_SIZE, &240u16.to_le_bytes());
        put(pe + 22, &0x22u16.to_le_bytes());
        let optional = pe + field::OPTIONAL;
        put(optional, &MAGIC_64.to_le_bytes());
        put(optional + field::SECTION_ALIGNMENT, &4096u32.to_le_bytes());
        put(optional + field::FILE_ALIGNMENT, &512u32.to_le_bytes());
        put(optional + field::HEADERS_SIZE, &(headers as u32).to_le_bytes());
        put(optional + 108, &16u32.to_le_bytes());
        let mut image = Image { bytes: out, headers: blank(pe, optional + 240, headers, machine) };
        // The first section has none before it to follow.
        image.headers.sections = 0;
        for (name, data) in sections {
            let at = image.headers.section(image.headers.sections);
            let address = 4096 * (image.headers.sections as u32 + 1);
            let offset = image.bytes.len() as u32;
            image.bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            image.put(at + field::VIRTUAL_SIZE, data.len() as u32);
            image.put(at + field::ADDRESS, address);
            image.put(at + field::RAW_SIZE, 512);
            image.put(at + field::RAW_OFFSET, offset);
            image.bytes.extend_from_slice(data);
            image.bytes.resize(offset as usize + 512, 0);
            image.headers.sections += 1;
        }
        image.finish()
    }

    fn blank(pe: usize, table: usize, headers_size: usize, machine: u16) -> Headers {
        Headers {
            pe,
            machine,
            section_alignment: 4096,
            file_alignment: 512,
            image_size: 0,
            headers_size,
            table,
            sections: 0,
        }
    }

    pub(crate) const AMD64: u16 = 0x8664;
    pub(crate) const STUB_SBAT: &[u8] =
        b"sbat,1,SBAT Version,sbat,1,url\nsystemd-stub,1,x,systemd,257,url\n\0";

    fn parts() -> (Vec<u8>, Vec<u8>) {
        let stub = pe(AMD64, 0x600, &[(".text", b"stub"), (".sbat", STUB_SBAT), (".reloc", b"r")]);
        let kernel = pe(AMD64, 0x400, &[(".text", b"kernel"), (".sbat", b"sbat,1,a\nlinux,1,L,linux,7,u\n")]);
        (stub, kernel)
    }

    fn uki<'a>(stub: &'a [u8], kernel: &'a [u8]) -> Uki<'a> {
        Uki {
            stub,
            kernel,
            initramfs: &[7; 5000],
            cmdline: "ro panic=10",
            os_release: "ID=debian\n",
            uname: "7.3",
        }
    }

    #[test]
    fn a_parser_of_another_hand_finds_every_section() {
        let (stub, kernel) = parts();
        let image = uki(&stub, &kernel).assemble().unwrap();
        let parsed = PeFile64::parse(&*image).unwrap();
        let names: Vec<_> = parsed.sections().map(|s| s.name().unwrap().to_string()).collect();
        assert_eq!(names, [".text", ".sbat", ".reloc", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        let data = |name: &str| {
            let section = parsed.section_by_name(name).unwrap();
            section.data().unwrap()[..section.size().min(section.data().unwrap().len() as u64) as usize]
                .to_vec()
        };
        assert_eq!(data(".cmdline"), b"ro panic=10");
        assert_eq!(data(".initrd"), [7; 5000]);
        assert_eq!(data(".linux")[..kernel.len()], kernel);
        assert_eq!(section(&image, ".linux").unwrap(), kernel);
        let sbat = String::from_utf8(data(".sbat")).unwrap();
        let names: Vec<_> = sbat.lines().map(|l| l.split(',').next().unwrap()).collect();
        assert_eq!(names, ["sbat", "systemd-stub", "linux", "uki", "\0"]);
        assert_eq!(section(&image, ".nothing"), None);
    }

    #[test]
    fn sections_do_not_overlap_and_the_image_spans_them() {
        let (stub, kernel) = parts();
        let image = uki(&stub, &kernel).assemble().unwrap();
        let parsed = PeFile64::parse(&*image).unwrap();
        let mut end = 0;
        for section in parsed.sections() {
            assert_eq!(section.address() % 4096, 0);
            assert!(section.address() >= end);
            end = section.address() + section.size();
            let (offset, size) = section.file_range().unwrap();
            assert_eq!(offset % 512, 0);
            assert!(offset + size <= image.len() as u64);
        }
        let linux = parsed.section_by_name(".linux").unwrap();
        let kernel_size = Headers::read(&kernel, "kernel").unwrap().image_size;
        assert_eq!(linux.size(), u64::from(kernel_size), "room to be started in place");
        assert_eq!(
            u64::from(parsed.nt_headers().optional_header.size_of_image.get(object::LittleEndian)),
            end.next_multiple_of(4096)
        );
    }

    #[test]
    fn the_same_parts_make_the_same_image() {
        let (stub, kernel) = parts();
        assert_eq!(uki(&stub, &kernel).assemble(), uki(&stub, &kernel).assemble());
    }

    #[test]
    fn unusable_parts_are_named() {
        let (stub, kernel) = parts();
        let arm = pe(0xaa64, 0x400, &[(".text", b"k")]);
        assert_eq!(uki(&stub, &arm).assemble(), Err(UkiError::Machine { stub: AMD64, kernel: 0xaa64 }));
        let tight = pe(AMD64, 0x200, &[(".text", b"k"), (".sbat", STUB_SBAT)]);
        assert!(matches!(uki(&tight, &kernel).assemble(), Err(UkiError::NoRoom(_))));
        let bare = pe(AMD64, 0x600, &[(".text", b"k")]);
        assert!(matches!(uki(&bare, &kernel).assemble(), Err(UkiError::Malformed { file: "stub", .. })));
        let gzip = [&[0x1f, 0x8b, 8, 0][..], &[0; 1000]].concat();
        assert!(matches!(uki(&stub, &gzip).assemble(), Err(UkiError::Malformed { file: "kernel", .. })));
        for cut in [0, 1, 0x3e, 0x81, 0x90, 0x100, 0x180] {
            assert!(uki(&stub[..cut], &kernel).assemble().is_err(), "{cut}");
        }
        let mut wild = stub.clone();
        wild[field::LFANEW..field::LFANEW + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(uki(&wild, &kernel).assemble().is_err());
    }
}
