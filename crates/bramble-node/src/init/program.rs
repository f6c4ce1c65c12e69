//! Runs programs of the verified root, in a chroot: the file system tools that the initramfs does not carry.
#![expect(unsafe_code, reason = "the chroot happens between fork and exec")]

use super::first::Trouble;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `program` with `arguments` in the root at `root`, `then` being called every 20 ms while it runs. Gives its exit
/// code and what it said.
pub fn run(
    root: &Path,
    program: &'static str,
    arguments: &[&str],
    mut then: impl FnMut(),
) -> Result<(i32, String), Trouble> {
    let failed = |why: String| Trouble::Program { program, why };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let new_root = root.to_path_buf();
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            rustix::process::chroot(&new_root)?;
            Ok(rustix::process::chdir("/")?)
        });
    }
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    while child.try_wait().map_err(|error| failed(error.to_string()))?.is_none() {
        then();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let Output { status, stdout, stderr } =
        child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let said = last_words(&String::from_utf8_lossy(&[stdout, stderr].concat()));
    match status.code() {
        Some(code) => Ok((code, said)),
        None => Err(failed(format!("{status}; {said}"))),
    }
}

/// What a program said, as one line that a console can show: its end, where the reason stands.
fn last_words(said: &str) -> String {
    const LENGTH: usize = 300;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join("; ");
    match line.char_indices().rev().nth(LENGTH) {
        Some((from, _)) => format!("...{}", &line[from..]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_said_is_kept() {
        assert_eq!(last_words("a\r\n\n b \n"), "a; b");
        let long = last_words(&format!("{}\nRUN fsck MANUALLY", "é".repeat(1000)));
        assert!(
            long.starts_with("...é") && long.ends_with("; RUN fsck MANUALLY") && long.chars().count() < 310
        );
    }
}
