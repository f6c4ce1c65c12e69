//! A terminal on a machine's console.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Ctrl-]: the key that telnet and `virsh console` leave by.
const DETACH: u8 = 0x1d;

/// Copies between this terminal and `stream` until the detach key is typed, standard input ends, or the machine
/// goes off. The terminal is raw meanwhile and as before afterwards.
pub(crate) fn attach(mut stream: UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    let _raw = Raw::set(&stdin)?;
    let mut buffer = [0; 4096];
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&stream, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready = fds.each_ref().map(|fd| !fd.revents().is_empty());
        if ready[0] {
            // Past the library's buffer, which poll would not see.
            let n = rustix::io::read(&stdin, &mut buffer)?;
            let typed = &buffer[..n];
            let keep = typed.iter().position(|b| *b == DETACH).unwrap_or(n);
            stream.write_all(&typed[..keep])?;
            if n == 0 || keep < n {
                return Ok(());
            }
        }
        if ready[1] {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            let mut stdout = io::stdout().lock();
            stdout.write_all(&buffer[..n])?;
            stdout.flush()?;
        }
    }
}

/// Puts the terminal back when dropped; holds nothing when standard input is no terminal.
struct Raw(Option<Termios>);

impl Raw {
    fn set(stdin: &io::Stdin) -> io::Result<Raw> {
        let Ok(before) = tcgetattr(stdin.as_fd()) else { return Ok(Raw(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a terminal that is gone.
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}
