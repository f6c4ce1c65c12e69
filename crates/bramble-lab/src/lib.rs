//! The site as virtual machines on this computer.
//!
//! One background process, the *lab host* ([`host::run`]), is the segment's switch, its gateway and its disk
//! server, and the parent of the QEMU processes. A program drives it through [`Lab`]. Nothing needs root: frames
//! travel over unix sockets, and the gateway's TCP/IP is in the host process.

mod client;
mod disk;
mod error;
mod firmware;
mod gateway;
pub mod host;
pub mod kvm;
mod layout;
mod nbd;
mod process;
pub mod qemu;
mod raspberry;
mod spec;
mod switch;
mod terminal;
mod wire;

pub use client::Lab;
pub use disk::server::DiskServer;
pub use error::{Error, Refusal};
pub use raspberry::REBOOT_MARKER;
pub use spec::{
    AccelChoice, BadMac, BaseSegment, Boot, Dhcp, Firmware, Forward, LabMachine, LabSpec, Mac, NetworkTime,
    PiBoard, PiHardware, Rtc, UPDATES_PORT,
};
pub use wire::{CutPoint, CutReport, LabEvent, MachineState, MachineStatus, StartReport};
