//! One connection between a port of this computer and a machine: a host socket and a socket of the gateway's TCP,
//! and the bytes between them.

use rustix::event::PollFlags;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

/// Buffer of a connection in each direction: one round trip takes about a millisecond under emulation, so that this
/// is some 250 MB/s.
const BUFFER: usize = 256 << 10;

/// A machine that does not answer for so long is off; kubectl and ssh should hear it soon.
const PATIENCE: Duration = Duration::from_secs(10);
/// Finds out about machines that were cut off while a watch was open.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Connection {
    host: TcpStream,
    socket: SocketHandle,
    /// The host said that it sends no more.
    host_ended: bool,
    /// The machine's end was passed on to the host.
    machine_ended: bool,
}

/// A socket of the gateway's TCP, closed.
fn gateway_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_timeout(Some(PATIENCE));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket
}

impl Connection {
    /// Begins to connect; `local` is a port of the gateway that no other connection has.
    pub(super) fn open(
        host: TcpStream,
        to: (Ipv4Addr, u16),
        local: u16,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) -> io::Result<Connection> {
        host.set_nonblocking(true)?;
        host.set_nodelay(true)?;
        let mut socket = gateway_socket();
        socket
            .connect(interface.context(), to, local)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
        let socket = sockets.add(socket);
        Ok(Connection { host, socket, host_ended: false, machine_ended: false })
    }

    /// A connection that a machine has made: `host` is where it leads.
    pub(super) fn adopt(host: TcpStream, socket: SocketHandle) -> io::Result<Connection> {
        host.set_nonblocking(true)?;
        host.set_nodelay(true)?;
        Ok(Connection { host, socket, host_ended: false, machine_ended: false })
    }

    /// A socket of the gateway that waits for a machine to connect to `port`.
    pub(super) fn listen(port: u16, sockets: &mut SocketSet<'static>) -> SocketHandle {
        let mut socket = gateway_socket();
        // Fails only for port 0 and for a socket that is open.
        let _ = socket.listen(port);
        sockets.add(socket)
    }

    /// The host's socket, and what to wait for on it.
    pub(super) fn interest(&self, sockets: &SocketSet<'static>) -> (&TcpStream, PollFlags) {
        let socket = sockets.get::<tcp::Socket<'_>>(self.socket);
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.host_ended && socket.can_send());
        flags.set(PollFlags::OUT, socket.can_recv());
        (&self.host, flags)
    }

    /// Moves what can be moved. `false` when the connection is over.
    pub(super) fn pump(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if self.send_on(socket).and_then(|()| self.hand_back(socket)).is_err() {
            socket.abort();
        }
        if !self.machine_ended && !socket.may_recv() && !socket.can_recv() && has_connected(socket) {
            self.machine_ended = true;
            // The host may be gone already.
            let _ = self.host.shutdown(Shutdown::Write);
        }
        socket.state() != tcp::State::Closed
    }

    fn send_on(&mut self, socket: &mut tcp::Socket<'static>) -> io::Result<()> {
        while !self.host_ended && socket.can_send() {
            let host = &mut self.host;
            let moved = socket.send(|room| match host.read(room) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error)),
            });
            match moved.map_err(broken)? {
                Ok(0) => {
                    self.host_ended = true;
                    socket.close();
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hand_back(&mut self, socket: &mut tcp::Socket<'static>) -> io::Result<()> {
        while socket.can_recv() {
            let host = &mut self.host;
            let moved = socket.recv(|data| match host.write(data) {
                Ok(n) => (n, Ok(())),
                Err(error) => (0, Err(error)),
            });
            match moved.map_err(broken)? {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Forgets the gateway's half; the host's half closes as this is dropped.
    pub(super) fn close(self, sockets: &mut SocketSet<'static>) {
        sockets.remove(self.socket);
    }
}

/// Before the machine has answered, "may not receive" does not mean that it has ended.
fn has_connected(socket: &tcp::Socket<'_>) -> bool {
    !matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen)
}

fn broken<E>(_: E) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
