//! Events from the machines to whoever follows the lab.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::wire::LabEvent;

/// Events that wait for one follower: a boot prints some two thousand lines.
const QUEUE: usize = 8192;

/// The followers.
#[derive(Default)]
pub(super) struct Hub {
    followers: Mutex<Vec<Follower>>,
}

struct Follower {
    queue: SyncSender<LabEvent>,
    missed: u64,
}

impl Hub {
    /// A new follower's queue.
    pub(super) fn follow(&self) -> Receiver<LabEvent> {
        let (queue, events) = sync_channel(QUEUE);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(Follower { queue, missed: 0 });
        events
    }

    /// Tells everyone. A follower that is slow misses events, and is told how many once it has caught up; it never
    /// holds a machine up.
    pub(super) fn tell(&self, event: &LabEvent) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain_mut(|follower| {
            if follower.missed > 0 {
                match follower.queue.try_send(LabEvent::Missed { count: follower.missed }) {
                    Ok(()) => follower.missed = 0,
                    Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Disconnected(_)) => return false,
                }
            }
            match follower.queue.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    follower.missed += 1;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_follower_learns_what_it_missed() {
        let hub = Hub::default();
        let events = hub.follow();
        let line = |text: &str| LabEvent::Line { machine: "n1".into(), text: text.into() };
        for _ in 0..QUEUE + 3 {
            hub.tell(&line("x"));
        }
        assert_eq!(events.try_iter().count(), QUEUE);
        hub.tell(&line("y"));
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [LabEvent::Missed { count: 3 }, line("y")]);
        drop(events);
        hub.tell(&line("z"));
        assert!(hub.followers.lock().unwrap().is_empty());
    }
}
