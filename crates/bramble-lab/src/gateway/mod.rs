//! The segment's gateway, with the file's own address: ARP, ping, DHCP, names, time, and connections from ports of
//! this computer to the machines. Nothing leaves to the outside: to whatever address a machine speaks, the gateway
//! answers itself, with a name, the time, or a refusal.
//!
//! One thread owns all of it and sleeps in poll(2) until a frame, a connection or a TCP timer wakes it.

mod dhcp;
mod dns;
mod forward;
mod ntp;
mod tap;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{ArpPacket, EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::spec::{Dhcp, LabSpec, Mac, NetworkTime, UPDATES_PORT};
use crate::switch::{Frame, PortId, Switch};
use forward::Connection;
use tap::Tap;

/// The gateway's card. A fixed address of QEMU's range, outside what [`Mac::derived`] gives.
pub(crate) const MAC: Mac = Mac([0x52, 0x55, 0x0a, 0x00, 0x00, 0x01]);

const DNS_PORT: u16 = 53;
const NTP_PORT: u16 = 123;

/// Frames that wait for the gateway's thread; later ones are lost.
const QUEUE: usize = 4096;
/// Each has half a MiB of buffers.
const MAX_CONNECTIONS: usize = 256;
/// IANA's range of dynamic ports.
const FIRST_PORT: u16 = 49152;

/// What the gateway must know of the lab's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    address: Ipv4Addr,
    prefix: u8,
    /// Addresses of the segment that ARP is answered for.
    own: BTreeSet<Ipv4Addr>,
    zone: dns::Zone,
    leases: dhcp::Leases,
    time: NetworkTime,
    /// The port of this computer that the update source is answered from.
    updates: Option<u16>,
}

impl Site {
    /// Reads it out of the description; `None` when the subnet has no free address.
    pub(crate) fn of(spec: &LabSpec) -> Option<Site> {
        let address = spec.effective_gateway()?;
        let domain = spec.domain.trim_matches('.').to_ascii_lowercase();
        let hosts = spec.machines.iter().map(|m| (m.name.to_ascii_lowercase(), m.address)).collect();
        let by_mac: BTreeMap<_, _> = spec
            .machines
            .iter()
            .filter_map(|m| {
                let leased = match m.dhcp {
                    Dhcp::Reserved => m.address,
                    Dhcp::Other(other) => other,
                    Dhcp::Silent => return None,
                };
                Some((m.effective_mac(), (leased, m.name.clone())))
            })
            .collect();
        let leases = dhcp::Leases {
            mac: MAC,
            gateway: address,
            netmask: spec.subnet.netmask(),
            domain: domain.clone(),
            by_mac,
        };
        Some(Site {
            address,
            prefix: spec.subnet.prefix_len(),
            own: spec.stand_ins.iter().copied().chain([address]).collect(),
            zone: dns::Zone { domain, hosts },
            leases,
            time: spec.time,
            updates: spec.updates,
        })
    }

    /// Whether two descriptions have the same gateway; the rest can change while machines run.
    pub(crate) fn same_gateway(&self, other: &Site) -> bool {
        (self.address, self.prefix) == (other.address, other.prefix)
    }
}

/// The handle that the lab host keeps. Dropping it ends the gateway's thread.
pub(crate) struct Gateway {
    inbox: Arc<Inbox>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Listeners of this computer, and the machine and port that each leads to.
type Forwards = Vec<(TcpListener, (Ipv4Addr, u16))>;

#[derive(Default)]
struct Letters {
    frames: VecDeque<Frame>,
    site: Option<Site>,
    forwards: Option<Forwards>,
    end: bool,
}

/// What waits for the gateway's thread, and the pipe that wakes it.
struct Inbox {
    letters: Mutex<Letters>,
    bell: UnixStream,
}

impl Inbox {
    fn post(&self, put: impl FnOnce(&mut Letters)) {
        put(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        // A full pipe rings as well as one byte more would.
        let _ = (&self.bell).write(&[1]);
    }
}

impl Gateway {
    /// Starts the gateway at a port of the switch.
    pub(crate) fn start(site: Site, switch: Arc<Switch>) -> io::Result<Gateway> {
        let (bell, wake) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let inbox = Arc::new(Inbox { letters: Mutex::default(), bell });
        let to = Arc::clone(&inbox);
        let port = switch.attach(Box::new(move |frame| {
            to.post(|letters| {
                if letters.frames.len() < QUEUE {
                    letters.frames.push_back(Arc::clone(frame));
                }
            });
        }));
        let mut stack = Stack::new(site, Arc::clone(&switch), port);
        let inside = Arc::clone(&inbox);
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || {
            while stack.turn(&inside, &wake) {}
            switch.detach(port);
        })?;
        Ok(Gateway { inbox, thread: Some(thread) })
    }

    /// Changes names, leases and time; the gateway's own address stays.
    pub(crate) fn update(&self, site: Site) {
        self.inbox.post(|letters| letters.site = Some(site));
    }

    /// Leads connections of these listeners, and no others, to machines. Connections that are open stay open.
    pub(crate) fn set_forwards(&self, forwards: Forwards) -> io::Result<()> {
        for (listener, _) in &forwards {
            listener.set_nonblocking(true)?;
        }
        self.inbox.post(|letters| letters.forwards = Some(forwards));
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.inbox.post(|letters| letters.end = true);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Everything that the gateway's thread owns.
struct Stack {
    site: Site,
    switch: Arc<Switch>,
    port: PortId,
    start: std::time::Instant,
    tap: Tap,
    interface: Interface,
    sockets: SocketSet<'static>,
    dns: SocketHandle,
    ntp: SocketHandle,
    listeners: Forwards,
    connections: Vec<Connection>,
    /// Waits for a machine that asks for updates.
    updates: SocketHandle,
    next_port: u16,
}

impl Stack {
    fn new(site: Site, switch: Arc<Switch>, port: PortId) -> Stack {
        let mut tap = Tap::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC.0)));
        // Only picks the first sequence numbers; connections of a former gateway must not be mistaken for ours.
        config.random_seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let mut interface = Interface::new(config, &mut tap, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list is empty and has room for two.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(site.address, site.prefix)));
        });
        // With a route to everywhere through itself the stack takes packets for any address as its own.
        interface.set_any_ip(true);
        let _ = interface.routes_mut().add_default_ipv4_route(site.address);
        let mut sockets = SocketSet::new(Vec::new());
        let mut udp = |port: u16| {
            let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 << 10]);
            let mut socket = udp::Socket::new(buffer(), buffer());
            // Fails only for port 0 and for a socket that is bound.
            let _ = socket.bind(port);
            sockets.add(socket)
        };
        let (dns, ntp) = (udp(DNS_PORT), udp(NTP_PORT));
        let updates = Connection::listen(UPDATES_PORT, &mut sockets);
        Stack {
            site,
            switch,
            port,
            start: std::time::Instant::now(),
            tap,
            interface,
            sockets,
            dns,
            ntp,
            listeners: Vec::new(),
            connections: Vec::new(),
            updates,
            next_port: FIRST_PORT,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// One round: take what came, work, wait. `false` when the gateway shall end.
    fn turn(&mut self, inbox: &Inbox, wake: &UnixStream) -> bool {
        {
            let mut letters = inbox.letters.lock().unwrap_or_else(PoisonError::into_inner);
            if letters.end {
                return false;
            }
            if let Some(site) = letters.site.take() {
                self.site = site;
            }
            if let Some(forwards) = letters.forwards.take() {
                self.listeners = forwards;
            }
            while let Some(frame) = letters.frames.pop_front() {
                if let Some(answer) = self.sort(frame) {
                    self.tap.to_send.push(answer);
                }
            }
        }
        self.accept();
        // Answers may free room for more, and what was moved must be sent: until nothing changes any more.
        loop {
            let now = self.now();
            let changed = self.interface.poll(now, &mut self.tap, &mut self.sockets);
            self.answer_names();
            self.answer_time();
            self.lead_to_updates();
            let sockets = &mut self.sockets;
            let mut over = Vec::new();
            for (i, connection) in self.connections.iter_mut().enumerate() {
                if !connection.pump(sockets) {
                    over.push(i);
                }
            }
            let idle = changed == smoltcp::iface::PollResult::None && self.tap.to_send.is_empty();
            for frame in self.tap.to_send.drain(..) {
                self.switch.forward(self.port, &frame.into());
            }
            for i in over.into_iter().rev() {
                self.connections.swap_remove(i).close(&mut self.sockets);
            }
            if idle {
                break;
            }
        }
        self.wait(wake);
        true
    }

    /// Answers DHCP, drops what is not for the gateway, and leaves the rest to TCP/IP.
    fn sort(&mut self, frame: Frame) -> Option<Vec<u8>> {
        if dhcp::is_for_server(&frame) {
            return dhcp::answer(&self.site.leases, &frame);
        }
        // The stack believes that every address is its own; on the segment that would take the machines' away.
        if frame.get(12..14) == Some(&[0x08, 0x06]) {
            let target = ArpPacket::new_checked(&frame[14..]).ok()?;
            let octets: [u8; 4] = target.target_protocol_addr().try_into().ok()?;
            if !self.site.own.contains(&Ipv4Addr::from(octets)) {
                return None;
            }
        }
        self.tap.received.push_back(frame);
        None
    }

    fn accept(&mut self) {
        for (listener, to) in &self.listeners {
            while self.connections.len() < MAX_CONNECTIONS {
                // No connection waits, or it went away again: nothing to do in both cases.
                let Ok((host, _)) = listener.accept() else { break };
                let local = self.next_port;
                self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                let opened = Connection::open(host, *to, local, &mut self.interface, &mut self.sockets);
                self.connections.extend(opened.ok());
            }
        }
    }

    /// A machine that has connected to the update source is led to the server on this computer; without one it is
    /// refused, as by a house whose source is down.
    fn lead_to_updates(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.updates);
        if !socket.may_send() {
            if !socket.is_open() {
                let _ = socket.listen(UPDATES_PORT);
            }
            return;
        }
        // On this computer itself: it answers at once, or nobody listens.
        let host = self.site.updates.map(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        let connection = match host {
            Some(Ok(host)) if self.connections.len() < MAX_CONNECTIONS => {
                Connection::adopt(host, self.updates).ok()
            }
            _ => None,
        };
        match connection {
            Some(connection) => {
                self.connections.push(connection);
                self.updates = Connection::listen(UPDATES_PORT, &mut self.sockets);
            }
            None => self.sockets.get_mut::<tcp::Socket<'_>>(self.updates).abort(),
        }
    }

    fn answer_names(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dns);
        while let Ok((question, from)) = socket.recv() {
            if let Some(answer) = dns::answer(&self.site.zone, question) {
                // A full buffer loses the answer; the machine asks again. The source is the address that was asked.
                let _ = socket.send_slice(&answer, from);
            }
        }
    }

    fn answer_time(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.ntp);
        while let Ok((question, from)) = socket.recv() {
            let offset = match self.site.time {
                NetworkTime::Host => 0,
                NetworkTime::Offset(seconds) => seconds,
                NetworkTime::Silent => continue,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
            if let Some(answer) = ntp::answer(question, now + i128::from(offset) * 1_000_000_000) {
                let _ = socket.send_slice(&answer, from);
            }
        }
    }

    fn wait(&mut self, wake: &UnixStream) {
        let delay = self.interface.poll_delay(self.now(), &self.sockets);
        let timeout = delay.map(|d| Timespec {
            tv_sec: d.secs() as i64,
            tv_nsec: i64::from(d.millis() as u32 % 1000) * 1_000_000
                + i64::from((d.micros() % 1000) as u32) * 1000,
        });
        let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
        if self.connections.len() < MAX_CONNECTIONS {
            fds.extend(self.listeners.iter().map(|(l, _)| PollFd::new(l, PollFlags::IN)));
        }
        for connection in &self.connections {
            // A host socket nothing is wanted from is left out: poll would report its hang-up for ever.
            let (stream, flags) = connection.interest(&self.sockets);
            if !flags.is_empty() {
                fds.push(PollFd::new(stream, flags));
            }
        }
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut rings = [0; 256];
        while matches!((&*wake).read(&mut rings), Ok(n) if n == rings.len()) {}
    }
}

#[cfg(test)]
mod tests;
