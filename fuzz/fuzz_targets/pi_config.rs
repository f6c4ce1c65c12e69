//! Any bytes as `autoboot.txt` and `config.txt` of a card: the model of the Pi's firmware ends, and never panics.
//!
//! The first three bytes choose board, date and flags; the text is split at the first byte 0xff.
#![no_main]

use bramble_disk::firmware::pi::{Board, BootFlags, Date, Model, decide};
use bramble_fat::{Entry, FatType, Options, Volume};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [model, year, flags, text @ ..] = bytes else { return };
    let mut parts = text.splitn(2, |byte| *byte == 0xff);
    let (autoboot, config) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut kernel = vec![0; 64];
    kernel[56..60].copy_from_slice(b"ARM\x64");
    let files = [
        Entry::file("bootcode.bin", b"code"),
        Entry::file("start.elf", b"\x7fELF"),
        Entry::file("start4.elf", b"\x7fELF"),
        Entry::file("autoboot.txt", autoboot),
        Entry::file("config.txt", config),
        Entry::file("tryboot.txt", config),
        Entry::file("include.txt", config),
        Entry::file("kernel8.img", &kernel),
        Entry::file("next/kernel8.img", &kernel),
    ];
    let options = Options { size: 4 << 20, sectors_per_cluster: 1, ..Options::new(FatType::Fat16) };
    let Ok(volume) = Volume::plan(&files, &options) else { return };
    // An MBR with one FAT partition from sector 2048 on.
    let mut disk = vec![0; 1 << 20];
    disk[450] = 0x0e;
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&8192u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    if volume.write_to(&mut disk).is_err() {
        return;
    }
    let date = Date::new(2019 + u16::from(*year % 9), 1 + year % 12, 15);
    let board = Board {
        bootloader: date,
        start_elf: date,
        ..Board::new(Model::ALL[usize::from(*model) % Model::ALL.len()])
    };
    let flags =
        BootFlags { tryboot: flags & 1 != 0, partition: u32::from(flags >> 1), ..BootFlags::default() };
    let _ = decide(&disk, &board, flags).to_string();
});
