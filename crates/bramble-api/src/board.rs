//! What is known of each Raspberry Pi: models, the files its firmware asks for, drivers, dates, and how any of it was seen.
//!
//! Data, so that the builder, `doctor` and the documents say the same. Sources: the firmware's own words (`strings` of
//! `start.elf` and `start4.elf`), release notes in raspberrypi/rpi-eeprom, raspberrypi.com's page of config.txt, and the
//! device trees of Debian's kernel, whose nodes name the drivers.

use crate::names::Board;
use serde::Serialize;

/// A kernel module and what fails without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Module name, as its file has it.
    pub name: &'static str,
    /// What fails without it.
    pub reason: &'static str,
}

/// A machine that a board's image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Its name, as it is sold.
    pub name: &'static str,
    /// The device trees that firmware asks for, by their names in Debian's kernel; none where that kernel has none for it:
    /// such a model does not start.
    pub device_trees: &'static [&'static str],
    /// An overlay that firmware lays over the first device tree on some machines of the model.
    pub overlay: Option<Overlay>,
    /// How it was seen to work.
    pub seen: Seen,
    /// QEMU's machine of it, if there is one.
    pub emulated: Option<&'static str>,
}

impl Model {
    /// Whether an image can start on it.
    pub fn starts(&self) -> bool {
        !self.device_trees.is_empty()
    }
}

/// What makes one device tree another. Debian's kernel has whole device trees for both steppings of a chip, but firmware
/// never asks for the second's: it reads the first's and lays an overlay of this name over it, if it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// Name of the overlay, without directory and ending.
    pub name: &'static str,
    /// The device tree it is laid over.
    pub from: &'static str,
    /// What comes out.
    pub to: &'static str,
}

/// How far a model was seen to work, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Not at all: Debian's kernel has no device tree for it.
    Nothing,
    /// Every file that its firmware asks for is there, and every driver that its device tree names.
    Files,
    /// QEMU's machine of it reached user space.
    Emulator,
    /// A real one did.
    Machine,
}

impl Seen {
    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Seen::Nothing => "does not start: Debian's kernel has no device tree for it",
            Seen::Files => "files and drivers checked, never started",
            Seen::Emulator => "started in an emulator",
            Seen::Machine => "started on a real one",
        }
    }
}

/// A boot loader that lies on the machine, not on the card: dates are of its releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootloader {
    /// Older ones do not know `tryboot_a_b`, or act on it wrongly: an update would try the wrong slot.
    pub least: &'static str,
    /// From here on it says in the device tree which partition was started.
    pub reports_partition: &'static str,
    /// From here on it looks for another partition that starts when the one named does not.
    pub partition_walk: &'static str,
}

/// What is known of a Raspberry Pi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The board.
    pub board: Board,
    /// The machines that its image is for.
    pub models: &'static [Model],
    /// The word for it in a filter of config.txt.
    pub filter: &'static str,
    /// Lines of config.txt that only this board has.
    pub config: &'static [&'static str],
    /// Files of Debian's `raspi-firmware` that are read from the first partition only.
    pub first_stage: &'static [&'static str],
    /// Files of Debian's `raspi-firmware` that are read from the partition that is started.
    pub firmware: &'static [&'static str],
    /// The kernel's name for the serial port on the pins that people connect to.
    pub serial: &'static str,
    /// Drivers of the media that a root can lie on, with all that they wait for: the initramfs carries them.
    pub storage: &'static [Driver],
    /// Drivers of the network ports: loaded from the root.
    pub network: &'static [Driver],
    /// Driver of the watchdog.
    pub watchdog: Driver,
    /// Seconds that the watchdog waits at most.
    pub watchdog_seconds: u32,
    /// Whether the watchdog works in QEMU's machine: some reset at once when it is armed.
    pub watchdog_emulated: bool,
    /// The boot loader, where it lies on the machine.
    pub bootloader: Option<Bootloader>,
    /// Bytes of memory of the smallest model.
    pub least_memory: u64,
    /// What a person must know beforehand, a sentence each.
    pub notes: &'static [&'static str],
}

const fn driver(name: &'static str, reason: &'static str) -> Driver {
    Driver { name, reason }
}

const PI_WATCHDOG: Driver = driver("bcm2835_wdt", "the watchdog");

const UNATTENDED: &str = "unattended updates stay off: Debian's kernel has no /dev/vcio, through which firmware is told to \
                          try the other slot";

/// Device trees by the names that the Linux source has.
const UPSTREAM: &[&str] = &["upstream_kernel=1"];

const PI3: Facts = Facts {
    board: Board::Pi3,
    models: &[
        Model {
            name: "Raspberry Pi 3 Model B",
            device_trees: &["bcm2837-rpi-3-b.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: Some("raspi3b"),
        },
        Model {
            name: "Raspberry Pi 3 Model B+",
            device_trees: &["bcm2837-rpi-3-b-plus.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: None,
        },
        Model {
            name: "Raspberry Pi 3 Model A+",
            device_trees: &["bcm2837-rpi-3-a-plus.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: Some("raspi3ap"),
        },
        Model {
            name: "Compute Module 3 and 3+",
            device_trees: &["bcm2837-rpi-cm3-io3.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: None,
        },
    ],
    filter: "pi3",
    config: UPSTREAM,
    first_stage: &["bootcode.bin"],
    firmware: &["start.elf", "fixup.dat"],
    serial: "ttyS1",
    storage: &[
        driver("fixed", "power of the SD card: CM3"),
        driver("bcm2835", "the SD card: the controller in use on most models"),
        driver("sdhci-iproc", "the SD card: the other controller"),
        driver("phy-generic", "USB disks: the port"),
        driver("dwc2", "USB disks: the host controller"),
    ],
    network: &[
        driver("smsc95xx", "Ethernet of the 3B"),
        driver("lan78xx", "Ethernet of the 3B+"),
        driver("brcmfmac", "Wi-Fi"),
    ],
    watchdog: PI_WATCHDOG,
    watchdog_seconds: 15,
    watchdog_emulated: false,
    bootloader: None,
    least_memory: 512 << 20,
    notes: &[
        "a worker or management machine, no control plane: 1 GiB of memory is too little for one",
        "whether its firmware tries the other slot was not seen on a real board",
        UNATTENDED,
    ],
};

const PI4: Facts = Facts {
    board: Board::Pi4,
    models: &[
        Model {
            name: "Raspberry Pi 4 Model B",
            device_trees: &["bcm2711-rpi-4-b.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: Some("raspi4b"),
        },
        Model {
            name: "Raspberry Pi 400",
            device_trees: &["bcm2711-rpi-400.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: None,
        },
        Model {
            name: "Compute Module 4",
            device_trees: &["bcm2711-rpi-cm4-io.dtb"],
            overlay: None,
            seen: Seen::Files,
            emulated: None,
        },
        Model {
            name: "Compute Module 4S",
            device_trees: &[],
            overlay: None,
            seen: Seen::Nothing,
            emulated: None,
        },
    ],
    filter: "pi4",
    config: UPSTREAM,
    first_stage: &[],
    firmware: &["start4.elf", "fixup4.dat"],
    serial: "ttyS1",
    storage: &[
        driver("fixed", "power of the SD card"),
        driver("gpio-regulator", "voltage of the SD card"),
        driver("sdhci-iproc", "the SD card and eMMC"),
        driver("pcie-brcmstb", "USB and, on CM4, NVMe"),
        driver("reset-raspberrypi", "the USB controller's firmware is loaded through it"),
        driver("xhci-pci", "USB disks: the host controller"),
        driver("nvme", "NVMe disks on CM4"),
        driver("phy-generic", "USB disks on CM4: the port"),
        driver("dwc2", "USB disks on CM4: the host controller"),
    ],
    network: &[
        driver("genet", "Ethernet"),
        driver("mdio-bcm-unimac", "Ethernet: the way to the PHY"),
        driver("broadcom", "Ethernet: the PHY"),
        driver("brcmfmac", "Wi-Fi"),
    ],
    watchdog: PI_WATCHDOG,
    watchdog_seconds: 15,
    watchdog_emulated: false,
    bootloader: Some(Bootloader {
        least: "2022-11-25",
        reports_partition: "2022-11-25",
        partition_walk: "2025-08-20",
    }),
    least_memory: 1 << 30,
    notes: &[
        "rev 1.0 and 1.1 of the 4B keep the wish to try the other slot in the EEPROM: it must not be write-protected",
        UNATTENDED,
    ],
};

const PI5: Facts = Facts {
    board: Board::Pi5,
    models: &[
        Model {
            name: "Raspberry Pi 5",
            // Both steppings of the chip, each with its own.
            device_trees: &["bcm2712-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb"],
            overlay: Some(Overlay {
                name: "bcm2712d0",
                from: "bcm2712-rpi-5-b.dtb",
                to: "bcm2712-d-rpi-5-b.dtb",
            }),
            seen: Seen::Files,
            emulated: None,
        },
        Model {
            name: "Raspberry Pi 500",
            device_trees: &[],
            overlay: None,
            seen: Seen::Nothing,
            emulated: None,
        },
        Model {
            name: "Compute Module 5",
            device_trees: &[],
            overlay: None,
            seen: Seen::Nothing,
            emulated: None,
        },
    ],
    filter: "pi5",
    // Its names are upstream's anyway, and the overlay for its second stepping belongs to the common way.
    config: &[],
    first_stage: &[],
    // The whole firmware lies in the EEPROM: config.txt alone makes a partition one to start.
    firmware: &[],
    serial: "ttyAMA10",
    storage: &[
        driver("pinctrl-brcmstb-bcm2712", "pins of the SD card"),
        driver("gpio-brcmstb", "the SD card's power and presence"),
        driver("fixed", "power of the SD card"),
        driver("gpio-regulator", "voltage of the SD card"),
        driver("sdhci-brcmstb", "the SD card"),
        driver("irq-bcm2712-mip", "interrupts of PCI devices"),
        driver("pcie-brcmstb", "NVMe and RP1"),
        driver("nvme", "NVMe disks"),
        driver("clk-rp1", "clocks of RP1"),
        driver("pinctrl-rp1", "pins of RP1"),
        driver("rp1-pci", "RP1, which has USB and Ethernet"),
        driver("dwc3", "USB disks: the controller"),
        driver("xhci-plat-hcd", "USB disks: the host controller"),
    ],
    network: &[
        driver("macb", "Ethernet"),
        driver("broadcom", "Ethernet: the PHY"),
        driver("brcmfmac", "Wi-Fi"),
    ],
    watchdog: PI_WATCHDOG,
    watchdog_seconds: 15,
    watchdog_emulated: false,
    bootloader: Some(Bootloader {
        least: "2023-12-14",
        reports_partition: "2024-05-13",
        partition_walk: "2025-08-20",
    }),
    least_memory: 1 << 30,
    notes: &["Debian's kernel has no driver for the fan: it runs as firmware left it", UNATTENDED],
};

/// What is known of a Raspberry Pi; `None` of a machine with UEFI firmware, where firmware describes the hardware.
pub fn facts(board: Board) -> Option<&'static Facts> {
    PIS.iter().find(|facts| facts.board == board)
}

/// All Raspberry Pis, the oldest first.
pub const PIS: [Facts; 3] = [PI3, PI4, PI5];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pi_has_facts_that_agree_with_each_other() {
        for board in Board::ALL {
            assert_eq!(facts(board).is_some(), board.is_pi(), "{board}");
        }
        for facts in PIS {
            assert_eq!(facts.filter, facts.board.name());
            assert!(facts.models.iter().any(Model::starts));
            for model in facts.models {
                assert_eq!(model.starts(), model.seen > Seen::Nothing, "{}", model.name);
                assert!(model.emulated.is_some() || model.seen != Seen::Emulator, "{}", model.name);
            }
            // Dates are compared as text.
            for date in facts.bootloader.iter().flat_map(|b| [b.least, b.reports_partition, b.partition_walk])
            {
                assert!(date.len() == 10 && date.split('-').count() == 3, "{date}");
            }
        }
    }
}
