//! What starts a machine, chosen at its power-on.

use bramble_disk::firmware::pi::{self, BootFlags};

use super::machine::{Design, Machine};
use crate::disk::Disk;
use crate::error::Refusal;
use crate::qemu::{BootConfig, MachineConfig, Qemu};
use crate::spec::Boot;
use crate::{firmware, raspberry};

impl Machine {
    /// What QEMU is given for the machine's disk as it is now.
    pub(super) fn boot_config(
        &self,
        design: &Design,
        disk: &Disk,
        flags: BootFlags,
        config: &MachineConfig,
        qemu: &Qemu,
    ) -> Result<BootConfig, Refusal> {
        let arch = design.machine.arch;
        Ok(match &design.machine.boot {
            Boot::Firmware => {
                let image = design.firmware.as_ref().ok_or(Refusal::NoFirmware { arch })?;
                let code = firmware::code(&self.commons.layout.firmware(), arch, image)?;
                BootConfig::Flash { code, vars: self.commons.layout.vars(&self.name) }
            }
            Boot::Kernel { kernel, initrd, cmdline } => BootConfig::Kernel {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                cmdline: cmdline.clone(),
                device_tree: None,
                choose_at_reset: false,
            },
            Boot::PiFirmware { board, bootloader, .. } => {
                let board = raspberry::board(*board, bootloader.as_deref());
                let decision = pi::decide(disk, &board, flags);
                self.console.say(&decision.to_string());
                let mut notes = Vec::new();
                let boot = raspberry::hand_over(
                    disk,
                    &decision,
                    config,
                    qemu,
                    &self.dir().join("firmware"),
                    &mut notes,
                );
                self.console.say(&notes.join("\n"));
                boot?
            }
        })
    }
}
