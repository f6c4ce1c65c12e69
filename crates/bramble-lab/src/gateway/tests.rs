//! The gateway as a machine sees it: a second TCP/IP stack on the same switch.

use super::*;
use smoltcp::socket::tcp;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant as Clock};

const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 11);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

fn spec() -> LabSpec {
    let text = r#"{"name":"t","subnet":"192.168.7.0/24","gateway":"192.168.7.1","domain":"home.arpa",
        "standIns":["192.168.7.53"],"forwards":[],"firmware":{},"time":{"offset":86400},
        "machines":[{"name":"n1","arch":"amd64","address":"192.168.7.11","mac":"52:54:00:00:00:11",
        "memoryMib":1,"cpus":1,"diskSize":4096,"base":[]}]}"#;
    serde_json::from_str(text).unwrap()
}

/// A machine's card and TCP/IP.
struct Machine {
    switch: Arc<Switch>,
    port: PortId,
    frames: Receiver<Frame>,
    tap: Tap,
    interface: Interface,
    sockets: SocketSet<'static>,
    start: Clock,
}

impl Machine {
    fn new(switch: &Arc<Switch>) -> Machine {
        let (send, frames) = channel();
        let port = switch.attach(Box::new(move |frame| {
            let _ = send.send(Arc::clone(frame));
        }));
        let mac = spec().machines[0].mac.unwrap();
        let mut tap = Tap::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        let mut interface = Interface::new(config, &mut tap, Instant::ZERO);
        interface.update_ip_addrs(|a| a.push(IpCidr::Ipv4(Ipv4Cidr::new(MACHINE, 24))).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        let (switch, sockets) = (Arc::clone(switch), SocketSet::new(Vec::new()));
        Machine { switch, port, frames, tap, interface, sockets, start: Clock::now() }
    }

    /// Runs until `done` says so; fails after ten seconds.
    fn run<T>(&mut self, mut done: impl FnMut(&mut SocketSet<'static>) -> Option<T>) -> T {
        let deadline = Clock::now() + Duration::from_secs(10);
        loop {
            let now = Instant::from_micros(self.start.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.tap, &mut self.sockets);
            for frame in self.tap.to_send.drain(..) {
                self.switch.forward(self.port, &frame.into());
            }
            if let Some(result) = done(&mut self.sockets) {
                return result;
            }
            assert!(Clock::now() < deadline, "nothing came");
            if let Ok(frame) = self.frames.recv_timeout(Duration::from_millis(1)) {
                self.tap.received.push_back(frame);
            }
        }
    }

    fn ask(&mut self, to: Ipv4Addr, port: u16, question: &[u8]) -> (Ipv4Addr, Vec<u8>) {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(40_000).unwrap();
        socket.send_slice(question, (to, port)).unwrap();
        let handle = self.sockets.add(socket);
        let answer = self.run(|sockets| {
            let (data, from) = sockets.get_mut::<udp::Socket<'_>>(handle).recv().ok()?;
            let smoltcp::wire::IpAddress::Ipv4(from) = from.endpoint.addr;
            Some((from, data.to_vec()))
        });
        self.sockets.remove(handle);
        answer
    }
}

fn question() -> Vec<u8> {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x02n1\x04home\x04arpa\0\0\x01\0\x01");
    question
}

#[test]
fn names_and_time_are_answered_at_every_address() {
    let switch = Arc::new(Switch::default());
    let _gateway = Gateway::start(Site::of(&spec()).unwrap(), Arc::clone(&switch)).unwrap();
    let mut machine = Machine::new(&switch);
    // The gateway, a server of the segment that stands in the file, a server of the great network.
    for server in [GATEWAY, Ipv4Addr::new(192, 168, 7, 53), Ipv4Addr::new(9, 9, 9, 9)] {
        let (from, answer) = machine.ask(server, DNS_PORT, &question());
        assert_eq!(from, server, "the answer comes from the address that was asked");
        assert!(answer.ends_with(&MACHINE.octets()));
    }
    let mut time = [0; 48];
    time[0] = 4 << 3 | 3;
    let (_, answer) = machine.ask(GATEWAY, NTP_PORT, &time);
    let seconds = u32::from_be_bytes(answer[40..44].try_into().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2_208_988_800 + 86_400;
    assert!((now as u32).wrapping_sub(seconds) < 60, "{now} {seconds}");
}

#[test]
fn the_gateway_leaves_other_addresses_of_the_segment_alone() {
    let switch = Arc::new(Switch::default());
    let _gateway = Gateway::start(Site::of(&spec()).unwrap(), Arc::clone(&switch)).unwrap();
    let (send, frames) = channel();
    let port = switch.attach(Box::new(move |frame| send.send(Arc::clone(frame)).unwrap()));
    let mac = [0x52, 0x54, 0, 0, 0, 0x11];
    for target in [99, 1] {
        let mut arp =
            [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &MACHINE.octets()].concat();
        arp.extend([0, 0, 0, 0, 0, 0, 192, 168, 7, target]);
        switch.forward(port, &arp.into());
    }
    let answer = frames.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(answer[28..32], GATEWAY.octets(), "only the second question is answered");
    assert_eq!(answer[22..28], MAC.0);
}

/// 3 MB go out and come back through both stacks while the machine echoes; then each side's end reaches the other.
#[test]
fn a_connection_from_this_computer_reaches_a_machine_and_ends_cleanly() {
    let switch = Arc::new(Switch::default());
    let gateway = Gateway::start(Site::of(&spec()).unwrap(), Arc::clone(&switch)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    gateway.set_forwards(vec![(listener, (MACHINE, 6443))]).unwrap();
    let mut machine = Machine::new(&switch);
    let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.listen(6443).unwrap();
    let handle = machine.sockets.add(socket);
    let text: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i as u8).to_le_bytes()).collect();
    let sent = text.clone();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            writing.write_all(&sent).unwrap();
            writing.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        writer.join().unwrap();
        back
    });
    machine.run(|sockets| {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        while socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let data = socket.recv(|d| (d.len().min(room), d[..d.len().min(room)].to_vec())).unwrap();
            assert_eq!(socket.send_slice(&data).unwrap(), data.len());
        }
        if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
            socket.close();
        }
        (socket.state() == tcp::State::Closed).then_some(())
    });
    assert!(client.join().unwrap() == text);
}

#[test]
fn a_port_that_nobody_listens_on_closes_the_connection_at_once() {
    let switch = Arc::new(Switch::default());
    let gateway = Gateway::start(Site::of(&spec()).unwrap(), Arc::clone(&switch)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    gateway.set_forwards(vec![(listener, (MACHINE, 22))]).unwrap();
    let mut machine = Machine::new(&switch);
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        stream.read(&mut [0; 16])
    });
    machine.run(|_| client.is_finished().then_some(()));
    // An end or a reset, but no time-out.
    match client.join().unwrap() {
        Ok(n) => assert_eq!(n, 0),
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionReset),
    }
}
