//! A release made of Debian's real packages: every file that a Pi's firmware asks for is what it should be.
//!
//! `BRAMBLE_PI_RELEASE` names the directory of a built arm64 release for all Pis; without it nothing is checked, and the
//! test says so. One is made by `bramble build`, or by `cargo run -p bramble-image --example release`.

use bramble_api::board::{Facts, PIS};
use bramble_image::devicetree::{DeviceTree, overlay};
use bramble_image::firmware::{CONFIG, INITRAMFS, KERNEL};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

type Files = BTreeMap<String, Vec<u8>>;

fn files(image: &Path) -> Files {
    let mut reader = bramble_fat::Reader::open(File::open(image).unwrap()).unwrap();
    let mut found = Files::new();
    for directory in ["", "overlays/"] {
        let nodes = reader.list(directory.trim_end_matches('/')).unwrap();
        for node in nodes.iter().filter(|node| !node.is_directory) {
            let path = format!("{directory}{}", node.name);
            found.insert(path.clone(), reader.read(&path, 1 << 30).unwrap());
        }
    }
    found
}

/// The values of a key in config.txt as a board's firmware reads it: outside of other boards' filters.
fn config<'a>(text: &'a str, facts: &Facts, key: &str) -> Vec<&'a str> {
    let mut applies = true;
    let mut found = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(filter) => applies = filter == "all" || filter == facts.filter,
            None if applies => found.extend(line.strip_prefix(key)),
            None => {}
        }
    }
    found
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn firmware_finds_every_file_it_asks_for() {
    let Some(directory) = std::env::var_os("BRAMBLE_PI_RELEASE") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no real release; name one in BRAMBLE_PI_RELEASE");
        return;
    };
    let directory = Path::new(&directory);
    let (slot, first) = (files(&directory.join("boot.img")), files(&directory.join("boot-select.img")));
    for facts in PIS {
        for (place, files) in [("slot", &slot), ("rescue", &first)] {
            let at = |name: &str| {
                files.get(name).unwrap_or_else(|| panic!("{}: no {name} in the {place}", facts.board))
            };
            let text = String::from_utf8(at(CONFIG).clone()).unwrap();
            assert_eq!(config(&text, &facts, "arm_64bit="), ["1"]);

            // The kernel: the header of an arm64 Image (Documentation/arch/arm64/booting.rst), little-endian, and with a
            // size in memory that two of these and an initramfs fit 512 MiB.
            assert_eq!(config(&text, &facts, "kernel="), [KERNEL]);
            let kernel = at(KERNEL);
            assert_eq!(kernel[56..60], *b"ARM\x64");
            let size = u64::from_le_bytes(kernel[16..24].try_into().unwrap());
            assert!(size >= kernel.len() as u64 && size < 128 << 20, "{size}");
            assert_eq!(kernel[24] & 1, 0);

            // The initramfs: zstd, which the kernel unpacks.
            assert_eq!(config(&text, &facts, "initramfs "), [format!("{INITRAMFS} followkernel")]);
            assert_eq!(at(INITRAMFS)[..4], 0xFD2F_B528_u32.to_le_bytes());

            let [cmdline] = config(&text, &facts, "cmdline=")[..] else { panic!("{text}") };
            let line = String::from_utf8(at(cmdline).clone()).unwrap();
            assert_eq!(line.lines().count(), 1);
            assert!(line.contains(&format!("console={},", facts.serial)), "{line}");
            assert_eq!(line.contains("bramble.rescue"), place == "rescue");

            // Firmware: VideoCore programs, which say themselves what they ask for.
            for name in facts.firmware {
                let bytes = at(name);
                assert!(!name.ends_with(".elf") || bytes.starts_with(b"\x7fELF"), "{name}");
                assert!(bytes.len() > 1000, "{name}");
            }
            if let Some(program) = facts.firmware.iter().find(|name| name.ends_with(".elf")) {
                let program = at(program);
                assert!(has(program, "bcm%d-rpi-%s.dtb") && has(program, "initramfs %64s followkernel"));
                for name in facts.models.iter().flat_map(|model| model.device_trees) {
                    let word = name.split_once("-rpi-").unwrap().1.trim_end_matches(".dtb");
                    assert!(has(program, &format!("{word}\0")), "{}: it never asks for {name}", facts.board);
                }
            }

            // Device trees: of this chip, and not of another.
            for model in facts.models {
                for name in model.device_trees {
                    let tree = DeviceTree::parse(at(name)).unwrap();
                    let chip = format!("brcm,{}", name.split_once('-').unwrap().0);
                    assert!(tree.compatible().contains(&chip.as_str()), "{name}: {:?}", tree.compatible());
                    assert!(!tree.suppliers().is_empty());
                }
                if let Some(made) = model.overlay {
                    let [from, to] = [made.from, made.to].map(|name| DeviceTree::parse(at(name)).unwrap());
                    let bytes = at(&format!("overlays/{}.dtbo", made.name));
                    assert_eq!(Some(bytes), overlay(&from, &to).as_ref());
                }
            }
        }
        for name in facts.first_stage {
            assert!(has(&first[*name], "autoboot.txt") && has(&first[*name], "tryboot_a_b"), "{name}");
            assert!(!slot.contains_key(*name));
        }
    }
}
