//! Which card of a node is being written, and which card founds the cluster.
//!
//! The invariant: **at most one card that can start a machine founds the cluster**. A second one would found another
//! cluster of the same name and keys beside the first. So a card counts from before it is finished until it is known
//! that it never was; and in doubt it counts: then a machine waits for servers that are not there, which a person
//! sees and can mend, instead of two clusters answering in turn.

use bramble_api::lock::{Allocated, Founder};
use bramble_spec::{Cluster, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which card is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCard {
    /// Another one than every card before.
    Another,
    /// The last one, of which is known that it was not written to its end.
    GoesOn,
    /// Another one, which founds the cluster anew: a person says that nothing is left of the one before.
    Founds,
}

/// How many cards there were, apart from the rest of the lock: a lab counts its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cards {
    /// Whose card founds the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<Founder>,
    /// Number of the last card, and whether it may start a machine, by node.
    #[serde(default)]
    pub nodes: BTreeMap<String, (u32, bool)>,
}

/// The cards of a lock.
pub fn cards(allocated: &Allocated) -> Cards {
    let nodes = allocated.nodes.iter().map(|(name, n)| (name.clone(), (n.incarnation, n.written))).collect();
    Cards { founder: allocated.founder.clone(), nodes }
}

/// The same allocations with these cards; a node that is not named has had none.
pub fn set_cards(allocated: &Allocated, cards: &Cards) -> Allocated {
    let mut result = allocated.clone();
    result.founder = cards.founder.clone();
    for (name, node) in &mut result.nodes {
        (node.incarnation, node.written) = cards.nodes.get(name).copied().unwrap_or((1, false));
    }
    result
}

/// Fixes whose card founds the cluster, unless it is: the first server of the file. A founder that left the file
/// before it had a card founds nothing.
pub fn settle_founder(allocated: &Allocated, cluster: &Cluster) -> Allocated {
    let mut result = allocated.clone();
    let nodes = cluster.effective_nodes();
    let servers = || nodes.iter().filter(|n| n.role == Role::ControlPlane);
    let stands = result.founder.as_ref().is_some_and(|f| {
        servers().any(|n| n.name == f.node)
            || result.nodes.get(&f.node).is_some_and(|n| n.written || n.incarnation > f.incarnation)
    });
    if stands {
        return result;
    }
    result.founder = servers().next().map(|first| Founder {
        node: first.name.clone(),
        incarnation: result.nodes.get(&first.name).map_or(1, |n| n.incarnation),
    });
    result
}

/// Counts a card that is about to be written. To be kept before the card can start a machine.
pub fn begin_card(allocated: &Allocated, cluster: &Cluster, name: &str, card: NextCard) -> Allocated {
    let mut result = settle_founder(allocated, cluster);
    let Some(node) = result.nodes.get_mut(name) else { return result };
    if node.written && card != NextCard::GoesOn {
        node.incarnation += 1;
    }
    node.written = true;
    if card == NextCard::Founds {
        result.founder = Some(Founder { node: name.to_string(), incarnation: node.incarnation });
    }
    result
}

/// Takes the last card of a node back: it was not written to its end, and never will be.
pub fn card_unfinished(allocated: &Allocated, name: &str) -> Allocated {
    let mut result = allocated.clone();
    if let Some(node) = result.nodes.get_mut(name) {
        node.written = false;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: { name: home }\nspec:\n  \
        kubernetes: { distribution: k3s, version: v1.36.4+k3s1, datastore: etcd }\n  \
        network: { subnet: 192.168.1.0/24 }\n  board: uefi-amd64\n  nodes:\n    \
        - { name: s1, role: control-plane, address: 192.168.1.11 }\n    \
        - { name: s2, role: control-plane, address: 192.168.1.12 }\n    \
        - { name: s3, role: control-plane, address: 192.168.1.13 }\n";

    fn site(text: &str) -> (Cluster, Allocated) {
        let cluster = match bramble_spec::parse(text, "bramble.yaml") {
            Ok(checked) => checked.cluster,
            Err(found) => panic!("{found}"),
        };
        let nodes = cluster.effective_nodes();
        let names = nodes.iter().map(|n| n.name.as_str());
        let allocated = crate::allocate(&Allocated::default(), names, cluster.spec.network.pods).unwrap();
        (cluster, allocated)
    }

    fn founder(allocated: &Allocated) -> Option<(String, u32)> {
        allocated.founder.clone().map(|f| (f.node, f.incarnation))
    }

    #[test]
    fn a_card_counts_once_it_may_start_and_a_broken_one_does_not() {
        let (cluster, new) = site(THREE);
        let first = begin_card(&new, &cluster, "s1", NextCard::Another);
        assert_eq!((first.nodes["s1"].incarnation, founder(&first)), (1, Some(("s1".into(), 1))));
        // Pulled in the middle; the same card goes on, however often.
        let again = begin_card(&first, &cluster, "s1", NextCard::GoesOn);
        assert_eq!(again, first);
        // Worn: known not to start, so the next one is still the first.
        let worn = card_unfinished(&first, "s1");
        assert_eq!(begin_card(&worn, &cluster, "s1", NextCard::Another), first);
        // Replaced: the second one. In doubt too: the run was killed and another card is put in.
        let second = begin_card(&first, &cluster, "s1", NextCard::Another);
        assert_eq!((second.nodes["s1"].incarnation, founder(&second)), (2, Some(("s1".into(), 1))));
        assert_eq!(second.nodes["s2"], new.nodes["s2"]);
    }

    #[test]
    fn another_order_in_the_file_makes_no_other_founder() {
        let (cluster, new) = site(THREE);
        let lines: Vec<&str> = THREE.lines().collect();
        let mut turned = lines.clone();
        turned.swap(8, 9);
        assert!(turned[8].contains("s2"));
        let (turned, _) = site(&turned.join("\n"));
        let begun = begin_card(&new, &cluster, "s3", NextCard::Another);
        assert_eq!(founder(&begin_card(&begun, &turned, "s2", NextCard::Another)), Some(("s1".into(), 1)));
        // It left the file before it had a card: another one founds; with a card it stays who founded.
        let without: Vec<&str> = lines.iter().copied().filter(|l| !l.contains("name: s1")).collect();
        let (without, _) = site(&without.join("\n"));
        assert_eq!(founder(&settle_founder(&begun, &without)), Some(("s2".into(), 1)));
        let had = begin_card(&begun, &cluster, "s1", NextCard::Another);
        assert_eq!(founder(&settle_founder(&had, &without)), Some(("s1".into(), 1)));
    }

    #[test]
    fn a_person_can_have_it_founded_anew() {
        let (cluster, new) = site(THREE);
        let first = begin_card(&new, &cluster, "s1", NextCard::Another);
        let anew = begin_card(&first, &cluster, "s2", NextCard::Founds);
        assert_eq!(founder(&anew), Some(("s2".into(), 1)));
        let anew = begin_card(&anew, &cluster, "s2", NextCard::Founds);
        assert_eq!(founder(&anew), Some(("s2".into(), 2)));
    }

    #[test]
    fn the_cards_of_a_lab_are_not_those_of_the_house() {
        let (cluster, new) = site(THREE);
        let house = cards(&begin_card(&new, &cluster, "s2", NextCard::Another));
        let lab = begin_card(&set_cards(&new, &Cards::default()), &cluster, "s1", NextCard::Another);
        let back = set_cards(&lab, &house);
        assert_eq!(cards(&back), house);
        assert_eq!(set_cards(&back, &cards(&lab)), lab);
    }
}
