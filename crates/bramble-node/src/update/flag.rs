//! What firmware keeps outside of the disk, for a trial: systemd-boot's variables, and a Pi's tryboot flag.
//!
//! Formats: Boot Loader Interface, <https://systemd.io/BOOT_LOADER_INTERFACE/>; efivarfs as in the kernel's
//! Documentation/filesystems/efivarfs.rst: a variable's file is four bytes of attributes, then its value, and it cannot be
//! changed before its immutable flag is taken off.

use crate::init::efi;
use bramble_api::layout;
use bramble_api::names::Slot;
use bramble_upgrade::media::{BootFlag, Refusal};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Non-volatile, for boot and run time (UEFI specification 2.10, 8.2).
const ATTRIBUTES: u32 = 7;
const ONE_SHOT: &str = "LoaderEntryOneShot";
/// All that systemd-boot puts before `default` of loader.conf, or that shows a menu.
const OVERRIDES: [&str; 4] =
    ["LoaderEntryDefault", "LoaderEntryPreferred", "LoaderConfigTimeout", "LoaderConfigTimeoutOneShot"];

/// systemd-boot's variables.
pub struct EfiVariables {
    directory: PathBuf,
}

impl EfiVariables {
    /// Those of this machine.
    pub fn of_machine() -> EfiVariables {
        EfiVariables { directory: efi::VARIABLES.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}-{}", efi::VENDOR))
    }

    /// Whether there was one.
    fn remove(&self, name: &str) -> Result<bool, Refusal> {
        let path = self.path(name);
        make_mutable(&path);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(refusal("remove the variable", name, &error)),
        }
    }
}

fn refusal(act: &str, name: &str, error: &io::Error) -> Refusal {
    Refusal { act: format!("{act} {name}"), why: error.to_string() }
}

/// What is not there, or is on another file system in tests, stays as it is: the act that follows says what is wrong.
fn make_mutable(path: &Path) {
    if let Ok(file) = File::open(path)
        && let Ok(flags) = ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
    {
        let _ = ioctl_setflags(&file, flags - IFlags::IMMUTABLE);
    }
}

/// A variable's file with a string in it.
fn string(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
    ATTRIBUTES.to_le_bytes().into_iter().chain(units).collect()
}

/// Name of a slot's entry.
fn entry(slot: Slot) -> &'static str {
    layout::uki_path(slot).rsplit('/').next().unwrap_or_default()
}

impl BootFlag for EfiVariables {
    fn clear_overrides(&mut self) -> Result<Vec<String>, Refusal> {
        let mut removed = Vec::new();
        for name in OVERRIDES {
            if self.remove(name)? {
                removed.push(name.to_string());
            }
        }
        Ok(removed)
    }

    fn ask(&mut self, slot: Slot) -> Result<(), Refusal> {
        let path = self.path(ONE_SHOT);
        make_mutable(&path);
        let bytes = string(entry(slot));
        // In one write: that is one call of the firmware.
        let written = File::options().write(true).create(true).truncate(false).open(&path);
        written
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(|error| refusal("write the variable", ONE_SHOT, &error))?;
        let read = std::fs::read(&path).map_err(|error| refusal("read the variable", ONE_SHOT, &error))?;
        match read == bytes {
            true => Ok(()),
            false => Err(Refusal {
                act: format!("set the variable {ONE_SHOT}"),
                why: "the firmware did not keep it".into(),
            }),
        }
    }

    fn pending(&mut self) -> Result<bool, Refusal> {
        Ok(self.path(ONE_SHOT).exists())
    }

    fn withdraw(&mut self) -> Result<(), Refusal> {
        self.remove(ONE_SHOT).map(|_| ())
    }
}

/// A Pi's flag, by the firmware's mailbox (`/dev/vcio` of the board maker's kernel). Kernels without that device cannot
/// ask for a trial, and such a machine updates only when its card is written.
pub struct Mailbox;

/// "Get reboot flags" and "Set reboot flags" of the firmware's property interface
/// (include/soc/bcm2835/raspberrypi-firmware.h of the Raspberry Pi kernel).
const GET_REBOOT_FLAGS: u32 = 0x0003_0064;
const SET_REBOOT_FLAGS: u32 = 0x0003_8064;
const TRYBOOT: u32 = 1;

impl Mailbox {
    const NODE: &'static str = "/dev/vcio";

    fn property(tag: u32, value: u32) -> Result<u32, Refusal> {
        let failed = |error: io::Error| refusal("ask the firmware through", Self::NODE, &error);
        let file = File::open(Self::NODE).map_err(failed)?;
        vcio::property(&file, tag, value).map_err(failed)
    }
}

impl BootFlag for Mailbox {
    fn clear_overrides(&mut self) -> Result<Vec<String>, Refusal> {
        Ok(Vec::new())
    }

    fn ask(&mut self, _: Slot) -> Result<(), Refusal> {
        Self::property(SET_REBOOT_FLAGS, TRYBOOT)?;
        match self.pending()? {
            true => Ok(()),
            false => Err(Refusal {
                act: "set the tryboot flag".into(),
                why: "the firmware did not keep it".into(),
            }),
        }
    }

    fn pending(&mut self) -> Result<bool, Refusal> {
        if !Path::new(Self::NODE).exists() {
            return Ok(false);
        }
        Ok(Self::property(GET_REBOOT_FLAGS, 0)? & TRYBOOT != 0)
    }

    fn withdraw(&mut self) -> Result<(), Refusal> {
        match Path::new(Self::NODE).exists() {
            true => Self::property(SET_REBOOT_FLAGS, 0).map(|_| ()),
            false => Ok(()),
        }
    }
}

mod vcio {
    #![expect(unsafe_code, reason = "the firmware's mailbox is reached by ioctl")]

    use std::fs::File;
    use std::io;

    /// Sends one property with one word, and gives the word of the answer.
    pub fn property(file: &File, tag: u32, value: u32) -> io::Result<u32> {
        use rustix::ioctl::{Updater, opcode};
        // Size of the message, request, tag, bytes for its value, request, value, end.
        let mut message: [u32; 8] = [32, 0, tag, 4, 0, value, 0, 0];
        // SAFETY: IOCTL_MBOX_PROPERTY of the vcio driver, `_IOWR(100, 0, char *)`, reads and writes as many bytes as the
        // first word of the message says, which is its length.
        unsafe {
            rustix::ioctl::ioctl(
                file,
                Updater::<{ opcode::read_write::<*mut u8>(100, 0) }, _>::new(&mut message),
            )?;
        }
        // The firmware's word that it knew the request.
        match message[1] {
            0x8000_0000 => Ok(message[5]),
            other => Err(io::Error::other(format!("the firmware answers {other:#x}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_asked_for_in_systemd_boot_s_words_and_taken_back() {
        let directory = std::env::temp_dir().join(format!("bramble-efi-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut variables = EfiVariables { directory: directory.clone() };
        assert!(!variables.pending().unwrap());
        variables.ask(Slot::B).unwrap();
        let file = std::fs::read(variables.path(ONE_SHOT)).unwrap();
        assert_eq!(file[..4], [7, 0, 0, 0]);
        assert_eq!(file[4..8], [b's', 0, b'l', 0]);
        assert!(file.ends_with(b"f\0i\0\0\0") && variables.pending().unwrap());
        variables.withdraw().unwrap();
        variables.withdraw().unwrap();
        assert!(!variables.pending().unwrap());
        std::fs::write(variables.path("LoaderEntryDefault"), string("slot-a.efi")).unwrap();
        assert_eq!(variables.clear_overrides().unwrap(), ["LoaderEntryDefault"]);
        assert!(variables.clear_overrides().unwrap().is_empty());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
