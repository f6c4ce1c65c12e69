//! What a Talos image is made of beside Talos itself, and the name that the Image Factory knows it by.
//!
//! The name is the SHA-256 of the schematic as the Factory writes it (`pkg/schematic` of image-factory), so it is
//! known offline; an image of it can be fetched once the Factory was told of it.

use crate::yaml::{self, Map, Value};
use bramble_spec::Board;
use sha2::{Digest, Sha256};

/// A schematic. It goes to a third party: no secret belongs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schematic {
    /// Firmware and boot loader of a board: name and image.
    pub overlay: Option<(String, String)>,
    /// Words for the kernel's command line.
    pub kernel_args: Vec<String>,
    /// System extensions.
    pub extensions: Vec<String>,
    /// Boot loader, when it is not the image's own choice: `sd-boot`, `grub`, `dual-boot`.
    pub bootloader: Option<String>,
}

/// The kernel's word with which Talos looks for its config on a volume called `metal-iso`.
pub const SEED_ARGUMENT: &str = "talos.config=metal-iso";

impl Schematic {
    /// The schematic of an installed machine: what the file states, and what its board needs.
    pub fn of_machine(board: Board, extensions: &[String], kernel_args: &[String]) -> Schematic {
        let pi = |name: &str| Some((name.to_string(), "siderolabs/sbc-raspberrypi".to_string()));
        Schematic {
            overlay: match board {
                Board::Pi3 | Board::Pi4 => pi("rpi_generic"),
                Board::Pi5 => pi("rpi_5"),
                Board::UefiAmd64 | Board::UefiArm64 => None,
            },
            kernel_args: kernel_args.to_vec(),
            extensions: extensions.to_vec(),
            // An installed machine keeps the boot loader that it has.
            bootloader: None,
        }
    }

    /// The schematic of the medium that is flashed: the machine's, looking for its config on a seed partition. The
    /// installed system must not look there: without a seed it would look for ever.
    ///
    /// A PC's image has two boot loaders otherwise, and the clean-up of the one that is not used rewrites the partition
    /// table in the very moment when the config is looked for.
    pub fn of_medium(&self, board: Board) -> Schematic {
        let mut medium = self.clone();
        if board == Board::UefiAmd64 {
            medium.bootloader = Some("sd-boot".to_string());
        }
        if !medium.kernel_args.iter().any(|arg| arg == SEED_ARGUMENT) {
            medium.kernel_args.push(SEED_ARGUMENT.to_string());
        }
        medium
    }

    /// The schematic as the Factory takes and writes it.
    pub fn text(&self) -> String {
        let list = |items: &[String]| items.iter().cloned().collect::<Value>();
        let mut top = Map::new();
        if let Some((name, image)) = &self.overlay {
            top.set("overlay", Map::new().with("image", image.clone()).with("name", name.clone()));
        }
        let mut custom = Map::new();
        if !self.kernel_args.is_empty() {
            custom.set("extraKernelArgs", list(&self.kernel_args));
        }
        if !self.extensions.is_empty() {
            custom.set("systemExtensions", Map::new().with("officialExtensions", list(&self.extensions)));
        }
        if let Some(bootloader) = &self.bootloader {
            custom.set("bootloader", bootloader.clone());
        }
        top.set("customization", custom);
        yaml::write([&top])
    }

    /// The name that the Factory gives it: 64 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest(self.text()))
    }

    /// The installer's image for a release (`v1.14.0`).
    pub fn installer(&self, release: &str, secure_boot: bool) -> String {
        let kind = if secure_boot { "metal-installer-secureboot" } else { "metal-installer" };
        format!("factory.talos.dev/{kind}/{}:{release}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    /// Names that the Factory gave; its own tests, its documentation and people's issues show them.
    #[test]
    fn names_are_the_factorys() {
        let vanilla = Schematic::default();
        assert_eq!(vanilla.text(), "customization: {}\n");
        assert_eq!(vanilla.id(), "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
        let pi4 = Schematic::of_machine(Board::Pi4, &[], &[]);
        assert_eq!(pi4.id(), "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9");
        let pi5 = Schematic::of_machine(Board::Pi5, &[], &[]);
        assert_eq!(pi5.id(), "a636242df247ad4aad2e36d1026d8d4727b716a3061749bd7b19651e548f65e4");
        let words = Schematic::of_machine(Board::UefiAmd64, &[], &strings(&["noapic", "nolapic"]));
        assert_eq!(words.id(), "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c");
        for (extensions, id) in [
            ("qemu-guest-agent", "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515"),
            ("iscsi-tools", "c9078f9419961640c712a8bf2bb9174933dfcf1da383fd8ea2b7dc21493f8bac"),
            ("tailscale", "4a0d65c669d46663f377e7161e50cfd570c401f26fd9e7bda34a0216b6f1922b"),
            ("gvisor", "d9ff89777e246792e7642abd3220a616afb4e49822382e4213a2e528ab826fe5"),
            (
                "iscsi-tools qemu-guest-agent",
                "dc7b152cb3ea99b821fcb7340ce7168313ce393d663740b791c36f6e95fc8586",
            ),
            (
                "iscsi-tools util-linux-tools",
                "613e1592b2da41ae5e265e8789429f22e121aab91cb4deb6bc3c0b6262961245",
            ),
            (
                "iscsi-tools qemu-guest-agent util-linux-tools",
                "88d1f7a5c4f1d3aba7df787c448c1d3d008ed29cfb34af53fa0df4336a56040b",
            ),
        ] {
            let names: Vec<String> = extensions.split(' ').map(|name| format!("siderolabs/{name}")).collect();
            assert_eq!(Schematic::of_machine(Board::UefiAmd64, &names, &[]).id(), id, "{extensions}");
        }
    }

    #[test]
    fn the_medium_looks_for_a_seed_and_the_installed_system_does_not() {
        let machine = Schematic::of_machine(
            Board::UefiAmd64,
            &strings(&["siderolabs/iscsi-tools"]),
            &strings(&["net.ifnames=0"]),
        );
        insta::assert_snapshot!(machine.of_medium(Board::UefiAmd64).text(), @r"
        customization:
            extraKernelArgs:
                - net.ifnames=0
                - talos.config=metal-iso
            systemExtensions:
                officialExtensions:
                    - siderolabs/iscsi-tools
            bootloader: sd-boot
        ");
        assert!(!machine.text().contains("metal-iso"));
        let medium = machine.of_medium(Board::UefiAmd64);
        assert_eq!(medium.of_medium(Board::UefiAmd64), medium);
    }
}
