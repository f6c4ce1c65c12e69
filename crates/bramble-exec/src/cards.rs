//! The lab's own count of cards: a rehearsal founds clusters and uses up cards of its own, and the house's lock never
//! hears of it.

use crate::hands::from_project;
use crate::project::replace;
use bramble_api::lock::{Allocated, Lock};
use bramble_effects::Failure;
use bramble_plan::Cards;
use std::path::{Path, PathBuf};

/// Counts the cards of a lab in a file in its directory.
pub struct LabCards {
    path: PathBuf,
    house: Cards,
}

impl LabCards {
    /// The cards of the lab in `directory`, and the house's lock with them in the place of its own.
    pub fn open(directory: &Path, house: &Lock) -> Result<(LabCards, Lock), Failure> {
        let path = directory.join("cards.json");
        let unread = || {
            Failure::user(format!("cannot read {}", path.display()))
                .hint("`bramble lab down --destroy` starts the lab afresh")
        };
        let cards: Cards = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| unread().source(e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Cards::default(),
            Err(e) => return Err(unread().source(e)),
        };
        let allocated = bramble_plan::set_cards(&house.allocated, &cards);
        let lock = Lock { allocated, ..house.clone() };
        Ok((LabCards { path, house: bramble_plan::cards(&house.allocated) }, lock))
    }

    /// Writes the lab's cards.
    pub(crate) fn keep(&self, allocated: &Allocated) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&bramble_plan::cards(allocated))
            .map_err(|e| Failure::bug("the lab's cards cannot be written").source(e))?;
        replace(&self.path, &text, 0o644).map_err(from_project)
    }

    /// The lock as the house has it: with the cards it had before.
    pub(crate) fn of_house(&self, lock: &Lock) -> Lock {
        Lock { allocated: bramble_plan::set_cards(&lock.allocated, &self.house), ..lock.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::lock::{AllocatedNode, Founder};

    #[test]
    fn the_house_never_hears_of_a_labs_cards() {
        let dir = tempfile::tempdir().unwrap();
        let mut house = Lock::default();
        let pod_range = "10.42.1.0/24".parse().unwrap();
        let node = AllocatedNode { number: 1, pod_range, incarnation: 3, written: true };
        house.allocated.nodes.insert("s1".into(), node);
        house.allocated.founder = Some(Founder { node: "s1".into(), incarnation: 1 });
        let (lab, mut lock) = LabCards::open(dir.path(), &house).unwrap();
        assert!(lock.allocated.founder.is_none());
        assert_eq!((lock.allocated.nodes["s1"].incarnation, lock.allocated.nodes["s1"].written), (1, false));
        lock.allocated.founder = Some(Founder { node: "s1".into(), incarnation: 1 });
        lock.allocated.nodes.get_mut("s1").unwrap().written = true;
        lock.users.insert("messagebus".into(), 999);
        lab.keep(&lock.allocated).unwrap();
        let back = lab.of_house(&lock);
        assert_eq!(back.allocated, house.allocated);
        assert_eq!(back.users["messagebus"], 999);
        assert_eq!(LabCards::open(dir.path(), &back).unwrap().1, lock);
    }
}
