//! Any bytes as a disk: the models of the Pi's firmware and of systemd-boot end, and never panic.
#![no_main]

use bramble_disk::firmware::fdt;
use bramble_disk::firmware::pi::{self, Board, BootFlags, Model};
use bramble_disk::firmware::systemd_boot::{self, Arch, Loader, Variables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for model in [Model::Pi3B, Model::Pi4B, Model::Pi5] {
        let flags = BootFlags { tryboot: bytes.len() % 2 == 1, ..BootFlags::default() };
        let _ = pi::decide(bytes, &Board::new(model), flags).to_string();
    }
    let loader = Loader { arch: Arch::Amd64, version: 257 };
    let _ = systemd_boot::decide(bytes, loader, &Variables::default()).to_string();
    if let Ok(told) =
        fdt::with_bootloader(bytes, &fdt::Bootloader { partition: 2, tryboot: true, build_timestamp: 0 })
    {
        let _ = fdt::compatible(&told);
    }
});
