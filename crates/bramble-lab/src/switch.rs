//! The segment: a learning Ethernet switch whose ports come and go.
//!
//! A machine's port is a unix stream on which QEMU's `-netdev stream` sends each frame after its length, four bytes,
//! big-endian (qemu, `net/stream.c`). The gateway's port is a closure.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::spec::Mac;

/// One Ethernet frame without its check sequence.
pub(crate) type Frame = Arc<[u8]>;

/// QEMU's own limit, `NET_BUFSIZE` of `include/net/net.h`.
const MAX_FRAME: usize = 4096 + 65536;
/// Destination, source, type.
const MIN_FRAME: usize = 14;
/// Frames that wait for a machine that does not read; later ones are lost, as on any switch. 1.5 MB.
const QUEUE: usize = 1024;
/// A segment has a few machines; containers behind bridges are not seen. More than this is somebody making
/// addresses up, and the table starts afresh.
const MAX_ADDRESSES: usize = 4096;

/// A place on the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PortId(u64);

type Deliver = Box<dyn Fn(&Frame) + Send>;

/// The switch.
#[derive(Default)]
pub(crate) struct Switch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ports: HashMap<PortId, Deliver>,
    learned: HashMap<Mac, PortId>,
    next: u64,
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a port. `deliver` is called with every frame for it, must not block and must not use the switch.
    pub(crate) fn attach(&self, deliver: Deliver) -> PortId {
        let mut state = self.lock();
        let id = PortId(state.next);
        state.next += 1;
        state.ports.insert(id, deliver);
        id
    }

    /// Closes a port and forgets what was learned about it.
    pub(crate) fn detach(&self, port: PortId) {
        let mut state = self.lock();
        state.ports.remove(&port);
        state.learned.retain(|_, p| *p != port);
    }

    /// Takes a frame that came in at a port to where it belongs.
    pub(crate) fn forward(&self, from: PortId, frame: &Frame) {
        let (Some(to), Some(source)) = (mac_at(frame, 0), mac_at(frame, 6)) else { return };
        let mut state = self.lock();
        if source.is_unicast() && state.ports.contains_key(&from) {
            if state.learned.len() >= MAX_ADDRESSES {
                state.learned.clear();
            }
            state.learned.insert(source, from);
        }
        match state.learned.get(&to).copied().filter(|_| to.is_unicast()) {
            Some(port) if port == from => {}
            Some(port) => {
                if let Some(deliver) = state.ports.get(&port) {
                    deliver(frame);
                }
            }
            None => {
                for (_, deliver) in state.ports.iter().filter(|(port, _)| **port != from) {
                    deliver(frame);
                }
            }
        }
    }
}

fn mac_at(frame: &[u8], at: usize) -> Option<Mac> {
    if frame.len() < MIN_FRAME {
        return None;
    }
    Some(Mac(frame[at..at + 6].try_into().ok()?))
}

/// Connects one machine's stream until it ends.
pub(crate) fn serve(switch: &Switch, stream: &UnixStream) -> io::Result<()> {
    let (queue, frames) = sync_channel::<Frame>(QUEUE);
    let sink = stream.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if send_all(&frames, &sink).is_err() {
                // Wakes the reading half, which closes the port.
                let _ = sink.shutdown(std::net::Shutdown::Both);
            }
        });
        let port = switch.attach(enqueue(queue));
        let result = receive_all(switch, port, stream);
        // Drops the queue's sender, which ends the other thread.
        switch.detach(port);
        result
    })
}

fn enqueue(queue: SyncSender<Frame>) -> Deliver {
    Box::new(move |frame| {
        // A full queue loses the frame.
        let _ = queue.try_send(Arc::clone(frame));
    })
}

fn receive_all(switch: &Switch, port: PortId, stream: &UnixStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(256 << 10, stream);
    let mut length = [0; 4];
    loop {
        match input.read_exact(&mut length) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            other => other?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            let text = format!("a frame of {length} bytes: the stream is out of step");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut frame = vec![0; length];
        input.read_exact(&mut frame)?;
        switch.forward(port, &frame.into());
    }
}

/// Writes frames as they come, several in one piece when several wait.
fn send_all(frames: &Receiver<Frame>, mut sink: &UnixStream) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Ok(first) = frames.recv() {
        batch.clear();
        for frame in std::iter::once(first).chain(frames.try_iter().take(63)) {
            batch.extend((frame.len() as u32).to_be_bytes());
            batch.extend_from_slice(&frame);
        }
        sink.write_all(&batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ALL: Mac = Mac([0xff; 6]);

    fn frame(to: Mac, from: Mac, text: &str) -> Vec<u8> {
        [&to.0[..], &from.0, &[8, 0], text.as_bytes()].concat()
    }

    fn send(stream: &mut UnixStream, frame: &[u8]) {
        stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(frame).unwrap();
    }

    fn receive(stream: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        frame
    }

    fn port(switch: &Arc<Switch>) -> (UnixStream, std::thread::JoinHandle<io::Result<()>>) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let before = switch.lock().ports.len();
        let inside = Arc::clone(switch);
        let thread = std::thread::spawn(move || serve(&inside, &far));
        while switch.lock().ports.len() == before {
            std::thread::yield_now();
        }
        (near, thread)
    }

    #[test]
    fn frames_find_their_port_and_strangers_are_not_shown_them() {
        let switch = Arc::new(Switch::default());
        let ((mut a, _t1), (mut b, _t2), (mut c, _t3)) = (port(&switch), port(&switch), port(&switch));
        send(&mut a, &frame(ALL, A, "who is b"));
        assert_eq!(receive(&mut b), frame(ALL, A, "who is b"));
        assert_eq!(receive(&mut c), frame(ALL, A, "who is b"));
        send(&mut b, &frame(A, B, "me"));
        assert_eq!(receive(&mut a), frame(A, B, "me"));
        send(&mut a, &frame(B, A, "hello"));
        assert_eq!(receive(&mut b), frame(B, A, "hello"));
        send(&mut b, &frame(ALL, B, "end"));
        assert_eq!(receive(&mut c), frame(ALL, B, "end"), "c saw nothing of what a and b said");
        // B's port closes; what is sent to it goes everywhere again, until it is heard at another port.
        drop(b);
        _t2.join().unwrap().unwrap();
        send(&mut a, &frame(B, A, "again"));
        assert_eq!(receive(&mut c), frame(B, A, "again"));
    }

    #[test]
    fn a_stream_out_of_step_is_closed_and_runts_are_ignored() {
        let switch = Arc::new(Switch::default());
        let ((mut a, thread), (mut b, _t)) = (port(&switch), port(&switch));
        send(&mut a, b"short");
        send(&mut a, &frame(ALL, A, "good"));
        assert_eq!(receive(&mut b), frame(ALL, A, "good"));
        a.write_all(&[0xff; 8]).unwrap();
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn a_machine_that_does_not_read_holds_nobody_up() {
        let switch = Arc::new(Switch::default());
        let ((mut a, _t1), (_deaf, _t2), (mut c, _t3)) = (port(&switch), port(&switch), port(&switch));
        let big = "x".repeat(1400);
        for _ in 0..2 * QUEUE {
            send(&mut a, &frame(ALL, A, &big));
            receive(&mut c);
        }
    }
}
