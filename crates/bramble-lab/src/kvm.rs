//! Whether this computer runs virtual machines by itself: not whether there is a file for it, but whether one can be
//! made. Inside containers and other virtual machines the file may be there with nothing behind it.
//!
//! Formats: linux/kvm.h, the kernel's Documentation/virt/kvm/api.rst 4.1 and 4.2.
#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "KVM is asked by ioctl"))]

/// Makes an empty virtual machine, runs its first instruction and lets it go. An error says in words what is missing.
#[cfg(target_os = "linux")]
pub fn check() -> Result<(), String> {
    use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
    use std::fs::OpenOptions;
    use std::os::fd::{FromRawFd, OwnedFd};

    /// The one version that there ever was since Linux 2.6.22; the kernel's documentation says to refuse others.
    const VERSION: IoctlOutput = 12;
    const PATH: &str = "/dev/kvm";

    /// A call of KVM without an argument, whose answer is a number.
    struct Call<const NUMBER: u8>;

    // SAFETY: the calls used here, KVM_GET_API_VERSION (0x00), KVM_CREATE_VM (0x01, whose argument 0 is the usual kind
    // of machine), KVM_CREATE_VCPU (0x41, whose argument is a number) and KVM_RUN (0x80), read and write no memory of
    // ours.
    unsafe impl<const NUMBER: u8> Ioctl for Call<NUMBER> {
        type Output = IoctlOutput;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            opcode::none(0xAE, NUMBER)
        }
        fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            output: IoctlOutput,
            _: *mut rustix::ffi::c_void,
        ) -> rustix::io::Result<IoctlOutput> {
            Ok(output)
        }
    }

    let file = OpenOptions::new().read(true).write(true).open(PATH).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("no {PATH}"),
        _ => format!("{PATH}: {e}"),
    })?;
    // SAFETY: see `Call`.
    let version = unsafe { rustix::ioctl::ioctl(&file, Call::<0x00>) };
    match version {
        Ok(VERSION) => {}
        Ok(other) => return Err(format!("{PATH} speaks version {other}, not {VERSION}")),
        Err(e) => return Err(format!("{PATH} is there and does not answer: {e}")),
    }
    // SAFETY: see `Call`.
    let machine = unsafe { rustix::ioctl::ioctl(&file, Call::<0x01>) }
        .map_err(|e| format!("{PATH} is there and makes no machine: {e}"))?;
    // SAFETY: KVM_CREATE_VM gives a descriptor of its own, which nobody else has.
    let machine = unsafe { OwnedFd::from_raw_fd(machine) };
    // SAFETY: see `Call`.
    let processor = unsafe { rustix::ioctl::ioctl(&machine, Call::<0x41>) }
        .map_err(|e| format!("{PATH} makes a machine and no processor for it: {e}"))?;
    // SAFETY: KVM_CREATE_VCPU gives a descriptor of its own, which nobody else has.
    let processor = unsafe { OwnedFd::from_raw_fd(processor) };
    // Some hosts give all of that and run nothing. A machine without memory stops at its first instruction, and says
    // so by a good answer. Only on x86: elsewhere a processor wants to be told more before it runs.
    if cfg!(target_arch = "x86_64") {
        // SAFETY: see `Call`; no memory was given to the machine.
        match unsafe { rustix::ioctl::ioctl(&processor, Call::<0x80>) } {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("{PATH} makes a machine and does not run it: {e}")),
        }
    }
    Ok(())
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
pub fn check() -> Result<(), String> {
    Err("this is not Linux".to_string())
}
