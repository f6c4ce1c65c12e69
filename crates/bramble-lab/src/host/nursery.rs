//! Starts child processes that never outlive the lab host.

#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "a child asks the kernel to be killed with its parent between fork and exec"
    )
)]

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};

type Job = (Command, Sender<io::Result<Child>>);

/// The thread that starts children. Linux ties "killed with its parent" to the *thread* that forked, so that one
/// thread, which lives as long as the host, has to start them all.
pub(super) struct Nursery {
    jobs: Sender<Job>,
}

impl Nursery {
    /// Starts the thread.
    pub(super) fn new() -> io::Result<Nursery> {
        let (jobs, orders) = channel::<Job>();
        std::thread::Builder::new().name("nursery".into()).spawn(move || {
            for (mut command, answer) in orders {
                die_with_parent(&mut command);
                // Who asked waits for the answer.
                let _ = answer.send(command.spawn());
            }
        })?;
        Ok(Nursery { jobs })
    }

    /// Starts a child.
    pub(super) fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, result) = channel();
        let gone = |_| io::Error::other("the thread that starts machines is gone");
        self.jobs.send((command, answer)).map_err(|_| gone(()))?;
        result.recv().map_err(|_| gone(()))?
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure runs in the child after fork and makes two system calls; it takes no lock and allocates
    // nothing.
    unsafe { command.pre_exec(ask) };
}

/// Elsewhere the next host ends what the last one left ([`super::site`]).
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}
