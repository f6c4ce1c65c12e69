//! A disk served on its own, for programs that look at one without a machine.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{Disk, DiskRecord};
use crate::error::Refusal;
use crate::nbd;
use crate::spec::BaseSegment;

/// A disk of a lab, without the lab.
#[derive(Debug)]
pub struct DiskServer {
    disk: Arc<Disk>,
}

impl DiskServer {
    /// Makes a fresh disk in a directory, over whatever disk is there.
    ///
    /// # Errors
    /// [`Refusal::System`], [`Refusal::DiskFull`].
    pub fn create(dir: &Path, size: u64, base: &[BaseSegment]) -> Result<DiskServer, Refusal> {
        let record = DiskRecord::create(dir, size, base)?;
        Ok(DiskServer { disk: Arc::new(Disk::open("disk", dir, &record)?) })
    }

    /// Serves one NBD client at a unix socket, which it makes anew; gives its path and the thread that ends with
    /// the client.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&self, socket: &Path) -> io::Result<(PathBuf, JoinHandle<io::Result<()>>)> {
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let disk = Arc::clone(&self.disk);
        let thread = std::thread::spawn(move || nbd::serve(&listener.accept()?.0, &disk, &|_| ()));
        Ok((socket.to_path_buf(), thread))
    }
}
