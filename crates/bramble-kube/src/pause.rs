//! The sandbox process of every pod, as an ELF file made here: no compiler, no libc, a few hundred bytes.
//!
//! It blocks SIGINT, SIGTERM and SIGCHLD, waits for them, reaps orphans of a shared process namespace, and ends on the
//! first two. A program of any language runtime would take a megabyte and more of memory for each pod.

use bramble_api::names::Arch;

/// System calls: rt_sigprocmask 14, rt_sigtimedwait 128, wait4 61, exit_group 231.
#[rustfmt::skip]
const AMD64: &[u8] = &[
    0x68, 0x02, 0x40, 0x01, 0x00,             // push 0x14002          the set: INT, TERM, CHLD
    0xb8, 0x0e, 0x00, 0x00, 0x00,             // mov eax, 14
    0x31, 0xff,                               // xor edi, edi          SIG_BLOCK
    0x48, 0x89, 0xe6,                         // mov rsi, rsp
    0x31, 0xd2,                               // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       // mov r10d, 8
    0x0f, 0x05,                               // syscall
    0xb8, 0x80, 0x00, 0x00, 0x00,             // wait: mov eax, 128
    0x48, 0x89, 0xe7,                         // mov rdi, rsp
    0x31, 0xf6,                               // xor esi, esi
    0x31, 0xd2,                               // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       // mov r10d, 8
    0x0f, 0x05,                               // syscall
    0x83, 0xf8, 0x02,                         // cmp eax, 2
    0x74, 0x20,                               // je exit
    0x83, 0xf8, 0x0f,                         // cmp eax, 15
    0x74, 0x1b,                               // je exit
    0xb8, 0x3d, 0x00, 0x00, 0x00,             // reap: mov eax, 61
    0x48, 0x83, 0xcf, 0xff,                   // or rdi, -1            any child
    0x31, 0xf6,                               // xor esi, esi
    0xba, 0x01, 0x00, 0x00, 0x00,             // mov edx, 1            WNOHANG
    0x45, 0x31, 0xd2,                         // xor r10d, r10d
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax, eax
    0x7f, 0xe7,                               // jg reap
    0xeb, 0xc7,                               // jmp wait
    0xb8, 0xe7, 0x00, 0x00, 0x00,             // exit: mov eax, 231
    0x31, 0xff,                               // xor edi, edi
    0x0f, 0x05,                               // syscall
];

/// System calls: rt_sigprocmask 135, rt_sigtimedwait 137, wait4 260, exit_group 94.
#[rustfmt::skip]
const ARM64: &[u32] = &[
    0xd288_0040, // mov x0, #0x4002              the set: INT, TERM, CHLD
    0xf2a0_0020, // movk x0, #1, lsl #16
    0xf81f_0fe0, // str x0, [sp, #-16]!
    0xd280_0000, // mov x0, #0                   SIG_BLOCK
    0x9100_03e1, // mov x1, sp
    0xd280_0002, // mov x2, #0
    0xd280_0103, // mov x3, #8
    0xd280_10e8, // mov x8, #135
    0xd400_0001, // svc #0
    0x9100_03e0, // wait: mov x0, sp
    0xd280_0001, // mov x1, #0
    0xd280_0002, // mov x2, #0
    0xd280_0103, // mov x3, #8
    0xd280_1128, // mov x8, #137
    0xd400_0001, // svc #0
    0xf100_081f, // cmp x0, #2
    0x5400_0180, // b.eq exit
    0xf100_3c1f, // cmp x0, #15
    0x5400_0140, // b.eq exit
    0x9280_0000, // reap: mov x0, #-1            any child
    0xd280_0001, // mov x1, #0
    0xd280_0022, // mov x2, #1                   WNOHANG
    0xd280_0003, // mov x3, #0
    0xd280_2088, // mov x8, #260
    0xd400_0001, // svc #0
    0xf100_001f, // cmp x0, #0
    0x54ff_ff2c, // b.gt reap
    0x17ff_ffee, // b wait
    0xd280_0000, // exit: mov x0, #0
    0xd280_0bc8, // mov x8, #94
    0xd400_0001, // svc #0
];

/// Where the file is mapped. Any page will do; a multiple of 64 KiB, the largest page of arm64 kernels.
const BASE: u64 = 0x40_0000;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const CODE: u64 = HEADER + 2 * PROGRAM_HEADER;

/// The program as an ELF file (System V ABI, chapters 4 and 5): one read-and-execute segment, a stack that is not
/// executable, no sections.
pub fn elf(arch: Arch) -> Vec<u8> {
    let (machine, code): (u16, Vec<u8>) = match arch {
        Arch::Amd64 => (62, AMD64.to_vec()),
        Arch::Arm64 => (183, ARM64.iter().flat_map(|word| word.to_le_bytes()).collect()),
    };
    let size = CODE + code.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    // 64 bits, little-endian, version 1, System V.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    file.extend_from_slice(&2_u16.to_le_bytes()); // ET_EXEC
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1_u32.to_le_bytes());
    for word in [BASE + CODE, HEADER, 0] {
        file.extend_from_slice(&word.to_le_bytes()); // entry, program headers, section headers
    }
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    segment(&mut file, 1, 5, BASE, size, 0x1_0000); // PT_LOAD, read and execute
    segment(&mut file, 0x6474_e551, 6, 0, 0, 16); // PT_GNU_STACK, read and write
    file.extend_from_slice(&code);
    file
}

fn segment(file: &mut Vec<u8>, kind: u32, flags: u32, address: u64, size: u64, align: u64) {
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&flags.to_le_bytes());
    for word in [0, address, address, size, size, align] {
        file.extend_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn both_files_parse_as_static_executables() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for (arch, machine) in [(Arch::Amd64, "X86-64"), (Arch::Arm64, "AArch64")] {
            let path = dir.path().join(arch.debian());
            std::fs::write(&path, elf(arch))?;
            let out = Command::new("readelf").args(["-hlW"]).arg(&path).output()?;
            let text = String::from_utf8(out.stdout)?;
            assert!(text.contains(machine) && text.contains("EXEC"), "{text}");
            assert!(text.contains("R E 0x10000") && text.contains("GNU_STACK"), "{text}");
            assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    /// Starts the program of this machine's architecture and ends it the way the kubelet does.
    #[test]
    fn ends_on_term() -> Result<(), Box<dyn std::error::Error>> {
        let arch = if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 };
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("pause");
        // Made executable by another process: a program that any process has open for writing cannot be started, and what
        // another test starts at this moment would have it.
        let data = dir.path().join("data");
        std::fs::write(&data, elf(arch))?;
        assert!(Command::new("install").args(["-m", "755"]).arg(&data).arg(&path).status()?.success());
        let mut child = Command::new(&path).stdin(Stdio::null()).spawn()?;
        // It has nothing to sleep in but its wait for signals: state S of proc(5). A signal before that would end it too,
        // but by the default action.
        let begin = std::time::Instant::now();
        loop {
            assert!(child.try_wait()?.is_none(), "ended before it was asked to");
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
            if status.lines().any(|l| l.starts_with("State:\tS")) {
                break;
            }
            assert!(begin.elapsed().as_secs() < 10, "never began to wait: {status}");
            std::thread::yield_now();
        }
        assert!(Command::new("kill").arg(child.id().to_string()).status()?.success());
        assert!(child.wait()?.success());
        Ok(())
    }
}
