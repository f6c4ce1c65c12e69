//! The gateway's network card: two queues between the switch and the gateway's TCP/IP.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;

use crate::switch::Frame;

/// Ethernet's usual 1500 bytes and the frame's head.
const FRAME_BYTES: usize = 1514;

/// Frames in, frames out.
#[derive(Default)]
pub(super) struct Tap {
    pub(super) received: VecDeque<Frame>,
    pub(super) to_send: Vec<Vec<u8>>,
}

impl Device for Tap {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, ToSend<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), ToSend(&mut self.to_send)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.to_send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

pub(super) struct Received(Frame);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct ToSend<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        self.0.push(frame);
        result
    }
}
